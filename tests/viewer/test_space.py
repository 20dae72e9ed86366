"""The Space on the Hub: what is pushed, and that it runs as it was pushed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hf_layertracer import LayerTracerReport
from hf_layertracer.errors import LayerTracerError
from hf_layertracer.report import REPORT_FILE
from hf_layertracer.viewer.report_sources import read_report
from hf_layertracer.viewer.space import build_space, example_reports, push_space, requirements


SPACE = Path(__file__).parents[2] / "spaces" / "layertracer-viewer"


def test_a_new_space_holds_page_library_and_examples(hub):
    address = push_space("alice/viewer")
    assert address.endswith("/spaces/alice/viewer")
    repo = hub.repo("alice/viewer", "space")
    files = repo.files
    assert len(repo.commits()) == 1
    assert files["app.py"] == (SPACE / "app.py").read_bytes()
    assert "hf_layertracer/viewer/app.py" in files
    assert "hf_layertracer/viewer/style.css" in files
    assert "hf_layertracer/data/probes.jsonl" in files
    assert any(path.startswith("hf_layertracer/model_cards/") for path in files)
    assert sum(path.endswith(REPORT_FILE) for path in files) == len(list(example_reports().iterdir())) == 4
    assert not [path for path in files if "__pycache__" in path or path.endswith(".pyc") or path == "__init__.py"]
    assert sum(map(len, files.values())) < 4 * 2**20


def test_no_token_and_no_path_of_this_machine_is_pushed(hub):
    push_space("alice/viewer")
    for path, content in hub.repo("alice/viewer", "space").files.items():
        for secret in (hub.token, str(Path.home()), str(SPACE.parents[1])):
            assert secret.encode() not in content, path


def test_pushing_again_brings_it_up_to_date_and_leaves_what_the_owner_added(hub, make_report, write_report):
    push_space("alice/viewer")
    from huggingface_hub import HfApi

    for path in ("notes.txt", "examples/old/file.json", "hf_layertracer/gone.py"):
        HfApi().upload_file(path_or_fileobj=b"x", path_in_repo=path, repo_id="alice/viewer", repo_type="space")
    push_space("alice/viewer", reports={"../my run": write_report(make_report())})
    files = hub.repo("alice/viewer", "space").files
    assert [path for path in files if path.startswith("examples/")] == [f"examples/my-run/{REPORT_FILE}"]
    assert LayerTracerReport.model_validate_json(files[f"examples/my-run/{REPORT_FILE}"]) == make_report()
    assert "hf_layertracer/gone.py" not in files
    assert "notes.txt" in files


def test_a_hostile_report_is_not_pushed(hub, tmp_path):
    (tmp_path / "bad.json").write_text("[" * 5000)
    with pytest.raises(LayerTracerError, match=r"bad\.json is not a LayerTracer report"):
        push_space("alice/viewer", reports={"bad": tmp_path / "bad.json"})
    assert not hub.repos


@pytest.mark.parametrize("repo", ["bob/viewer", "no id at all", "alice/../x", ""])
def test_where_one_may_not_write_is_one_line(hub, repo):
    with pytest.raises(LayerTracerError) as caught:
        push_space(repo)
    assert "\n" not in str(caught.value)


def test_private_is_asked_for(hub):
    push_space("alice/viewer", private=True)
    assert hub.repo("alice/viewer", "space").private


def test_requirements_are_those_of_the_package_and_its_extra():
    lines = requirements().splitlines()
    names = {line.split(">")[0] for line in lines[1:]}
    assert {"torch", "transformers", "huggingface_hub", "gradio", "plotly", "pydantic"} <= names
    assert not {"pytest", "datasets", "selenium", "trl"} & names
    assert not any(";" in line for line in lines)


def test_the_card_names_sdk_version_and_file_that_exist():
    front = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert front["sdk"] == "gradio"
    assert (SPACE / front["app_file"]).is_file()
    assert "layertracer" in front["tags"]
    pinned = dict(line.split("==") for line in (SPACE.parents[1] / "constraints.txt").read_text().splitlines()[1:])
    assert front["sdk_version"] == pinned["gradio"]
    assert len(front["short_description"]) <= 60


def test_the_examples_are_real_reports_with_public_names():
    found = sorted(path.parent.name for path in example_reports().rglob(REPORT_FILE))
    assert found == ["gemma-3-270m", "smollm2-135m", "smollm2-135m-freeze-deep", "smollm2-135m-full"]
    for name in found:
        report = LayerTracerReport.load(example_reports() / name)
        assert "/" in report.model.id
        assert report.probes.count >= 100
    assert sum(path.stat().st_size for path in example_reports().rglob("*")) < 2 * 2**20


def test_what_is_pushed_runs_with_the_library_beside_it(tmp_path):
    build_space(tmp_path / "space")
    code = (
        "import runpy, hf_layertracer, pathlib; names = runpy.run_path('app.py');"
        "print(pathlib.Path(hf_layertracer.__file__).parent.parent, type(names['app']).__name__)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "space",
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(tmp_path / "space"), "Blocks"]


@pytest.mark.parametrize(
    "path", sorted(example_reports().glob("*/layertracer_report.json")), ids=lambda p: p.parent.name
)
def test_every_view_of_an_example_is_drawn(path, draw_everything):
    # Their later diagnoses were written with schema version 1: only means are known.
    assert all(text for text in draw_everything(read_report(path)))


NAMES = ["a b", "a-b", "a_b", "A-B", "中文模型", "另一个", "???", "!!!"]


def test_names_that_fold_together_keep_a_folder_each(tmp_path, make_report, write_report):
    reports = {name: write_report(make_report(5 + i), str(i)) for i, name in enumerate(NAMES)}
    build_space(tmp_path / "space", reports)
    built = {path.parent.name: LayerTracerReport.load(path) for path in (tmp_path / "space/examples").glob("*/*.json")}
    assert sorted(report.num_layers for report in built.values()) == [5 + i for i in range(len(NAMES))]
    assert len({name.casefold() for name in built}) == len(NAMES)
    assert {"中文模型", "另一个"} <= set(built)


def test_a_name_without_an_owner_is_the_users_own(hub):
    assert push_space("viewer").endswith("/spaces/alice/viewer")
    assert "app.py" in hub.repo("alice/viewer", "space").files


def test_a_space_with_another_app_is_overwritten_only_on_request(hub):
    from huggingface_hub import HfApi

    HfApi().create_repo("alice/game", repo_type="space", space_sdk="gradio")
    HfApi().upload_file(path_or_fileobj=b"mine", path_in_repo="app.py", repo_id="alice/game", repo_type="space")
    with pytest.raises(LayerTracerError, match="holds another app, so nothing was pushed"):
        push_space("alice/game")
    assert hub.repo("alice/game", "space").files["app.py"] == b"mine"
    push_space("alice/game", exist_ok=True)
    assert hub.repo("alice/game", "space").files["app.py"] != b"mine"


def test_reports_in_a_space_lose_their_paths(hub, make_report, write_report):
    path = write_report(make_report(notes=["could not open file:///home/private-user/x.json"]))
    push_space("alice/viewer", reports={"mine": path})
    content = hub.repo("alice/viewer", "space").files[f"examples/mine/{REPORT_FILE}"]
    assert b"private-user" not in content
    assert b"could not open x.json" in content
