"""A new strategy, command or viewer tab is one file: put into a copy of the package, it is found everywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.made_reports import make_report

import hf_layertracer


STRATEGY = """
from dataclasses import dataclass

from ...errors import LayerTracerError
from .base import Choice, Strategy, option


@dataclass(frozen=True)
class StrideOptions:
    stride: int = option(2, "Every so many layers, one trains.")

    def __post_init__(self):
        if self.stride < 2:
            raise LayerTracerError(f"stride must be at least 2, not {self.stride}.")


def choose(inputs, options):
    return Choice(set(range(0, inputs.num_layers, options.stride)), f"Every layer number {options.stride}.")


STRATEGY = Strategy("every-other", "Train a layer, skip some, train a layer.", choose, StrideOptions)
"""

COMMAND = '''
from typing import Annotated

import typer


def command(name: Annotated[str, typer.Argument(help="Whom [to] greet.")]) -> None:
    """Greet [someone]."""
    typer.echo(f"Hello {name}.")
'''

TAB = """
import gradio as gr

from .base import QUIET, Page, Tab


def _build(page: Page, tab: gr.Tab) -> None:
    said = gr.HTML()
    tab.select(lambda name, opened: f"{page.reports.report(name, opened).num_layers} layers",
               [page.chosen, page.opened], said, **QUIET)


TAB = Tab("Count", _build, place=1.5)
"""

# What the copy of the package knows of them, without a word about them anywhere else: asked in one process.
ASK = """
import io, json, sys
from contextlib import redirect_stdout
import gradio as gr
from transformers import AutoModelForCausalLM, HfArgumentParser, TrainingArguments
from hf_layertracer import LayerTracerConfig, LayerTracerError, LayerTracerReport, make_plan
from hf_layertracer.cli.app import main
from hf_layertracer.viewer.allocation import snippet, try_allocation
from hf_layertracer.viewer.app import build_app
from hf_layertracer.viewer.tabs.allocate import option_controls

def layertracer(*arguments):
    sys.argv = ["layertracer", *arguments]
    with redirect_stdout(io.StringIO()) as printed:
        try:
            main()
        except SystemExit as end:
            assert not end.code, end
    return printed.getvalue()

folder = sys.argv[1]
model = AutoModelForCausalLM.from_pretrained(folder)
report = LayerTracerReport.load(folder)
parser = HfArgumentParser((TrainingArguments, LayerTracerConfig))
_, parsed = parser.parse_args_into_dataclasses(["--output_dir", "x", "--strategy", "every-other", "--stride", "3"])
try:
    LayerTracerConfig(strategy="every-other", stride=1)
except LayerTracerError as error:
    refused = str(error)
control = option_controls("every-other")["stride"]
tried = try_allocation(report, "every-other", stride=3.0, freeze_ratio=0.5)
app = build_app([folder])
tabs = {block.id: block for block in app.blocks.values() if isinstance(block, gr.Tab)}
(chosen,) = [block for block in app.blocks.values() if block.elem_id == "lt-name"]
# Each tab's selection also writes the address, by a script of the page alone.
(click,) = [fn for fn in app.fns.values() if (tabs["count"]._id, "select") in fn.targets and fn.fn is not None]
print(json.dumps({
    "plan": make_plan(model, "every-other").trained_layers,
    "with_option": make_plan(report, "every-other", stride=3).trained_layers,
    "config": parsed.plan_options(),
    "refused": refused,
    "control": [control.label, control.value, control.visible],
    "tried": tried.trained_layers,
    "snippets": [snippet(tried, report, form) for form in ("Python", "CLI")],
    "tabs": [tab.label for tab in tabs.values()],
    "click": click.fn(chosen.value, {}),
    "plan --help": layertracer("plan", "--help"),
    "plan made": layertracer("plan", folder, "--strategy", "every-other", "--stride", "3"),
    "--help": layertracer("--help"),
    "greet --help": layertracer("greet", "-h"),
    "greet": layertracer("greet", "Ada"),
}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, tiny_llama) -> dict[str, Any]:
    """What a copy of the package with one more strategy, command and tab says when it is asked."""
    root, asked = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("asked")
    package = root / "hf_layertracer"
    shutil.copytree(Path(hf_layertracer.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "planning/strategies/every_other.py").write_text(STRATEGY)
    (package / "cli/greet.py").write_text(COMMAND)
    (package / "viewer/tabs/count.py").write_text(TAB)
    tiny_llama().save_pretrained(asked)
    make_report(7).save_json(asked)
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "120"}
    command = [sys.executable, "-c", ASK, str(asked)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_strategy_is_one_file(found):
    assert found["plan"] == [0, 2]
    assert found["with_option"] == found["tried"] == [0, 3, 6]
    assert found["config"] == {"stride": 3}
    assert found["refused"] == "stride must be at least 2, not 1."
    assert found["control"] == ["Every so many layers, one trains", 2, True]
    python, cli = found["snippets"]
    assert "LayerTracerConfig(strategy='every-other', stride=3)" in python
    assert cli.endswith("--strategy every-other --stride 3\n")


def test_the_command_line_knows_the_strategy_and_its_option(found):
    help = " ".join(found["plan --help"].replace("│", " ").split())
    assert "every-other Train a layer, skip some, train a layer. Takes --stride." in help
    assert "--stride <int> Every so many layers, one trains. By default 2." in help
    assert re.search(r"trained layers +│ +0, 3", found["plan made"])


def test_a_command_is_one_file(found):
    assert re.search(r"greet +Greet \[someone\]\.", found["--help"])
    assert "Whom [to] greet." in found["greet --help"]
    assert found["greet"] == "Hello Ada.\n"


def test_a_tab_of_the_viewer_is_one_file(found):
    assert found["tabs"] == ["See", "Count", "Probes", "Compare", "Try an allocation", "Hybrid", "Trials"]
    assert found["click"] == "7 layers"
