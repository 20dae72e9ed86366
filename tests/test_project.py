"""What a public project promises beside its code: one version, a source that tests itself, citations, templates."""

from __future__ import annotations

import configparser
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import metadata
from pathlib import Path

import pytest
import yaml

import hf_layertracer


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_the_version_stands_in_one_place(settings):
    assert settings["metadata"]["version"] == "attr: hf_layertracer.__version__"
    assert metadata("hf_layertracer")["Version"] == hf_layertracer.__version__
    assert "version" not in yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_oldest_python_is_the_same_everywhere(settings):
    classifiers = settings["metadata"]["classifiers"]
    tested = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["strategy"]["matrix"]
    named = re.findall(r"Python :: (3\.\d+)$", classifiers, re.MULTILINE)
    assert named == tested["python"]
    assert settings["options"]["python_requires"] == f">={named[0]}"


def test_pre_commit_runs_the_ruff_that_make_lint_runs():
    (ruff, *_) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert f"ruff=={ruff['rev'].removeprefix('v')}" in (ROOT / "constraints.txt").read_text().splitlines()


def test_the_papers_are_cited():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert [paper["identifiers"][0]["value"] for paper in cited["references"]] == [
        "arXiv:2605.11416",
        "arXiv:2604.20556",
    ]
    assert all(paper["authors"] and paper["title"] for paper in cited["references"])


def test_templates_of_issues_ask_for_something():
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        template = yaml.safe_load(path.read_text())
        if path.stem != "config":
            assert {"name", "description", "body"} <= template.keys()
            assert all(field["attributes"]["label"] for field in template["body"])


# What is made on the way, and is no source.
MADE = shutil.ignore_patterns(
    ".git",
    ".venv",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "build",
    "dist",
    "site",
    "*.egg-info",
    "layertracer-demo",
    "layertracer-report",
)


@pytest.mark.slow
def test_the_source_distribution_can_run_its_own_tests(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=MADE)
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=source, check=True, capture_output=True, timeout=120)
    (archive,) = tmp_path.glob("*.tar.gz")
    assert archive.name == f"hf_layertracer-{hf_layertracer.__version__}.tar.gz"
    with tarfile.open(archive) as content:
        content.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    for folder in ("tests", "hf_layertracer", "examples", "benchmarks", "model_cards", "spaces", "docs", ".github"):
        wanted = {path.relative_to(source) for path in (source / folder).rglob("*") if path.is_file()}
        assert {path for path in wanted if not (unpacked / path).is_file()} == set()
    # On a package index, nothing lies beside the README.
    inside = re.findall(r"\]\((?!https?:|#)[^)]*\)", (unpacked / "PKG-INFO").read_text())
    assert inside == []
    # The tests of the unpacked tree, on the unpacked tree.
    code = (
        "import hf_layertracer, pytest, sys; assert hf_layertracer.__file__.startswith(sys.argv[1]);"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'tests/test_package.py']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, unpacked],
        cwd=unpacked,
        env=_with_path(unpacked),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_links_of_the_readme_lead_to_the_repository_where_it_has_an_address(tmp_path, monkeypatch):
    for name in ("setup.py", "README.md", "setup.cfg"):
        shutil.copy(ROOT / name, tmp_path)
    text = (tmp_path / "setup.cfg").read_text()
    (tmp_path / "setup.cfg").write_text(
        text.replace("project_urls =\n", "project_urls =\n    Source = https://a.example/b\n")
    )
    said = runpy.run_path(str(tmp_path / "setup.py"), run_name="setup")["description"]()
    assert "](https://a.example/b/blob/main/docs/why.md)" in said
    assert "](https://a.example/b/raw/main/docs/viewer-see.png)" in said


def _with_path(folder: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(folder)}
