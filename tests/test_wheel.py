"""What `pip install hf_layertracer` brings: code, probes and card templates, also where there is no repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
# Finds each file of the package where the wheel put it, and makes a card with the templates.
CHECK = """
import sys
sys.path.insert(0, sys.argv[1])
from importlib.resources import files
import hf_layertracer
assert hf_layertracer.__file__.startswith(sys.argv[1]), hf_layertracer.__file__
assert str(files("hf_layertracer.model_cards")).startswith(sys.argv[1])
from hf_layertracer.probes import load_probes
assert len(load_probes()) > 50
from hf_layertracer import LayerTracerReport
from hf_layertracer.hub.card import model_card
from hf_layertracer.hub.collection import dataset_card
report = LayerTracerReport.load(sys.argv[2])
assert "## LayerTracer report" in model_card(None, report, "alice/tiny")
assert "load_dataset" in dataset_card(None, "alice/reports", [])
"""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked by pip into a folder."""
    folder = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "tests", "layertracer-demo")
    shutil.copytree(ROOT, folder / "source", ignore=unwanted)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "source"]
    subprocess.run(wheel, check=True, timeout=300)
    (built,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", built], check=True, timeout=300)
    return folder / "site"


def test_the_wheel_brings_all_that_the_code_reads(installed, tmp_path, tiny_llama, token_probes):
    from hf_layertracer import DiagnosisConfig, diagnose

    diagnose(tiny_llama(), token_probes, config=DiagnosisConfig(repeats=1)).save_json(tmp_path)
    subprocess.run([sys.executable, "-c", CHECK, installed, tmp_path], check=True, cwd=tmp_path, timeout=300)


def test_every_module_of_the_repository_is_in_it(installed):
    def modules(folder: Path) -> set[Path]:
        return {path.relative_to(folder) for path in folder.rglob("*.py") if "__pycache__" not in path.parts}

    package = modules(installed / "hf_layertracer")
    assert {path for path in package if path.parts[0] != "model_cards"} >= modules(ROOT / "hf_layertracer")
    templates = {path.name for path in (installed / "hf_layertracer" / "model_cards").glob("*.md")}
    assert templates == {path.name for path in (ROOT / "model_cards").glob("*.md")}
