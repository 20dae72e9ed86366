"""What mkdocs does beside turning Markdown into pages: folders in the navigation, generated pages, references."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from commands import commands_page  # noqa: E402
from picture import picture  # noqa: E402
from records import records_page  # noqa: E402

import hf_layertracer  # noqa: E402


GENERATED = {
    "reference/cli.md": commands_page,
    "reference/report.md": records_page,
    "about/rooms.svg": picture,
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the pages of a folder where the navigation names the folder."""
    config.nav = _expanded(config.nav, Path(config.docs_dir), _named(config.nav))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made from the code."""
    for place, make in GENERATED.items():
        files.append(File.generated(config, place, content=make()))
    return files


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Links the names in docstrings, which Hugging Face writes as [`Name`]."""
    if not page.file.src_uri.startswith("reference/"):
        return html

    def link(match: re.Match[str]) -> str:
        name = match[1].removeprefix("~").rpartition(".")[2]
        code = f"<code>{name}</code>"
        return f'<a href="api.html#hf_layertracer.{name}">{code}</a>' if name in hf_layertracer.__all__ else code

    return re.sub(r"\[<code>([\w.~]+)</code>\]", link, html)


def _named(nav: list[Any]) -> set[str]:
    """The pages that the navigation names itself."""
    found = set()
    for entry in nav:
        values = list(entry.values()) if isinstance(entry, dict) else [entry]
        for value in values:
            found |= _named(value) if isinstance(value, list) else {value}
    return found


def _expanded(nav: list[Any], root: Path, named: set[str]) -> list[Any]:
    found: list[Any] = []
    for entry in nav:
        title, value = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(value, list):
            value = _expanded(value, root, named)
        elif value.endswith("/"):
            value = [page for page in _pages(root, value) if page not in named]
            if title is None:
                found += value
                continue
        if value:
            found.append({title: value} if title else value)
    return found


def _pages(root: Path, folder: str) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in (root / folder).glob("*.md"))
