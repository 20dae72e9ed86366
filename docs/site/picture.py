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
WIDTH, GAP, HEAD, LINE, LETTER = 1000, 12, 32, 16, 7.9


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
    lines, y = [], GAP
    for names in reversed(stacked):
        width = (WIDTH - GAP * (len(names) + 1)) / len(names)
        texts = [textwrap.wrap(said[name].replace("`", ""), max(int(width / LETTER), 12)) for name in names]
        height = HEAD + LINE * max(len(text) for text in texts)
        for column, (name, text) in enumerate(zip(names, texts, strict=True)):
            lines += _box(name, text, GAP + column * (width + GAP), y, width, height)
        y += height + GAP
    begin = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" font-family="sans-serif">',
        "<title>The rooms of hf_layertracer; each imports only rooms below it</title>",
        f'<rect width="{WIDTH}" height="{y}" fill="#fff" rx="8"/>',
    ]
    return "\n".join([*begin, *lines, "</svg>"]) + "\n"


def _box(name: str, text: list[str], x: float, y: int, width: float, height: int) -> list[str]:
    box = f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{height}" rx="6" fill="#eef1fb" stroke="#3f51b5"/>'
    x += 10
    head = f'<text x="{x:.0f}" y="{y + 22}" font-size="16" font-weight="bold" fill="#1a237e">{escape(name)}</text>'
    said = [
        f'<text x="{x:.0f}" y="{y + 40 + LINE * number}" font-size="13" fill="#333">{escape(line)}</text>'
        for number, line in enumerate(text)
    ]
    return [box, head, *said]
