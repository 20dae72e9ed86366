"""The picture of the code, from the code: one box a room, and each room above those that it imports."""

from __future__ import annotations

import ast
import textwrap
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path


PACKAGE = Path(__file__).parents[2] / "hf_layertracer"
# The imports that do not run one way, each with its reason.
LOOKS_UP = {
    ("config", "diagnosis"): "settings are checked against the perturbations that there are",
    ("report", "hub"): "LayerTracerReport.load and .push_to_hub speak to the Hub",
}
WIDTH, BOX, GAP, TOP = 1000, 92, 14, 20


def rooms() -> dict[str, str]:
    """The packages and modules right below `hf_layertracer`, with the first sentence of what they say of themselves."""
    found = {}
    for path in sorted(PACKAGE.iterdir()):
        source = path / "__init__.py" if path.is_dir() else path
        if source.suffix == ".py" and source.is_file() and path.name != "__init__.py":
            said = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
            found[path.stem] = " ".join(said.split("\n\n")[0].split()).split(". ")[0].rstrip(".")
    return found


def imports_of(room: str) -> set[str]:
    """The rooms that a room imports, at the top of its modules or inside functions."""
    found = set()
    place = PACKAGE / room
    for path in place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]:
        package = path.relative_to(PACKAGE).parts[:-1]
        for node in _imports(ast.parse(path.read_text(encoding="utf-8"))):
            base = package[: len(package) - node.level + 1]
            parts = [*base, *(node.module.split(".") if node.module else [])]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
    return found & rooms().keys() - {room}


def _imports(tree: ast.AST) -> list[ast.ImportFrom]:
    """The relative imports that run: not those for type checkers alone."""
    found: list[ast.ImportFrom] = []
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.ImportFrom) and child.level:
            found.append(child)
        found += _imports(child)
    return found


def rows() -> list[list[str]]:
    """The rooms from the bottom up: each stands one row above the highest that it imports.

    Raises:
        graphlib.CycleError: Rooms import each other, and `LOOKS_UP` has no reason for it.
    """
    below = {room: {other for other in imports_of(room) if (room, other) not in LOOKS_UP} for room in rooms()}
    level: dict[str, int] = {}
    for room in TopologicalSorter(below).static_order():
        level[room] = 1 + max((level[other] for other in below[room]), default=-1)
    return [sorted(room for room in level if level[room] == row) for row in range(max(level.values()) + 1)]


def picture() -> str:
    """The picture, as SVG."""
    said, stacked = rooms(), rows()
    height = TOP + len(stacked) * (BOX + GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="sans-serif">',
        "<title>The rooms of hf_layertracer; each imports only rooms below it</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff" rx="8"/>',
    ]
    for row, names in enumerate(reversed(stacked)):
        width = (WIDTH - GAP * (len(names) + 1)) / len(names)
        for column, name in enumerate(names):
            lines += _box(name, said.get(name, ""), GAP + column * (width + GAP), TOP + row * (BOX + GAP), width)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _box(name: str, text: str, x: float, y: float, width: float) -> list[str]:
    lines = [
        f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{BOX}" rx="6" fill="#eef1fb" stroke="#3f51b5"/>',
        f'<text x="{x + 10:.0f}" y="{y + 22}" font-size="16" font-weight="bold" fill="#1a237e">{escape(name)}</text>',
    ]
    for number, line in enumerate(textwrap.wrap(text, max(int(width / 6.6), 12))[:4]):
        lines.append(
            f'<text x="{x + 10:.0f}" y="{y + 40 + 14 * number}" font-size="12" fill="#333">{escape(line)}</text>'
        )
    return lines
