"""The documentation: its code runs, its commands exist, its site needs no other server, and no public name is missing."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import hf_layertracer
from hf_layertracer.cli.app import build_command


ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> Iterator[str]:
    for indent, found, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if found == language:
            yield textwrap.dedent(code) if indent else code


def names(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch):
    """`site("picture")`: a module of those that make the pages."""
    monkeypatch.syspath_prepend(str(DOCS / "site"))
    return importlib.import_module


# -- code ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("my_report")
@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page, "python"))], ids=names)
def test_the_code_of_a_page_runs_from_top_to_bottom(page: Path):
    space = {"__name__": "__main__"}
    for number, code in enumerate(blocks(page, "python"), start=1):
        exec(compile(code, f"{page.name}, block {number}", "exec"), space)


def test_the_code_of_the_readme_runs_where_model_and_data_are_at_hand(at_hand):
    for code in blocks(ROOT / "README.md", "python"):
        exec(code.replace('"user/', '"alice/'), at_hand)  # who is logged in on the local Hub


COMMANDS = [
    (page, line)
    for page in [*PAGES, ROOT / "README.md"]
    for code in blocks(page, "bash")
    for line in code.splitlines()
    if line.startswith("layertracer ") and "COMMAND" not in line
]


@pytest.mark.parametrize(
    ("page", "line"), COMMANDS, ids=lambda value: value if isinstance(value, str) else names(value)
)
def test_a_command_on_a_page_has_these_options(page: Path, line: str):
    command, arguments = build_command(), shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands"):
        assert arguments[0] in command.commands, f"there is no command {arguments[0]}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
    command.make_context("layertracer", arguments)  # parses and runs nothing


# -- the site ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_the_site_asks_no_other_server_for_anything(built: Path):
    asked = set()
    for page in built.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        asked |= set(re.findall(r'<(?:script|img|iframe|source)[^>]+src="(https?:[^"]+)"', text))
        asked |= set(re.findall(r'<link[^>]+href="(https?:[^"]+)"', text))
    for sheet in built.rglob("*.css"):
        asked |= set(re.findall(r"url\(['\"]?(https?:[^)'\"]+)", sheet.read_text(encoding="utf-8")))
    assert asked == set()


def test_every_page_can_be_reached_from_the_navigation(built: Path):
    start = (built / "index.html").read_text(encoding="utf-8")
    for page in PAGES:
        assert f'href="{page.relative_to(DOCS).with_suffix(".html").as_posix()}"' in start, names(page)


def test_every_public_name_is_in_the_reference():
    listed = re.findall(r"^::: hf_layertracer\.(\w+)$", (DOCS / "reference/api.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(hf_layertracer.__all__)


def test_every_field_of_the_report_is_described(site):
    records = site("records")
    page = records.records_page()
    for record in records.records():
        assert f"{{ #{record.__name__} }}" in page
        missing = records.fields(record).keys() - records.descriptions(record).keys()
        assert not missing, f"{record.__name__} says nothing of {sorted(missing)}"


def test_every_command_has_its_place_on_the_page_of_commands(site):
    commands = site("commands")
    page = commands.commands_page()
    found = commands.commands(build_command())
    assert {"diagnose", "plan", "view"} <= found.keys()
    assert all(f"## `layertracer {name}`" in page for name in found)


# -- the picture of the code -----------------------------------------------------------------------------------------


def test_imports_run_one_way(site):
    picture = site("picture")
    rows = picture.rows()  # raises where rooms import each other
    level = {room: number for number, row in enumerate(rows) for room in row}
    assert level["records"] < level["diagnosis"] < level["training"] < level["cli"]
    for room, other in picture.LOOKS_UP:
        assert other in picture.imports_of(room), f"{room} no longer looks up to {other}: take the exception away"


def test_every_room_is_in_the_picture_with_its_job(site):
    picture = site("picture")
    drawn = picture.picture()
    for room, job in picture.rooms().items():
        assert f">{room}</text>" in drawn
        assert job, f"{room} does not say what it is for"
