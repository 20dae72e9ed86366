"""The report as a file: what is written is read back, half a file is never left, and nothing else is taken for one."""

from __future__ import annotations

import copy
import errno
import json
import os
import resource
import stat
import subprocess
import sys
import textwrap

import huggingface_hub
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.made_reports import with_further
from support.malformed import NOT_JSON, OTHER_JSON, refusal

from hf_layertracer import LayerTracerError, LayerTracerReport
from hf_layertracer.errors import ReportNotFoundError
from hf_layertracer.files import write_atomically
from hf_layertracer.records import SCHEMA_VERSION
from hf_layertracer.report import REPORT_FILE


@pytest.fixture(scope="session")
def report(make_report, make_later) -> LayerTracerReport:
    """A report with a history, a training run and text in several scripts."""
    unresolved = {"task_particle__layer": None, "task_particle__interval": None}
    later = [make_later(6, 3), make_later(6, 3, step=200, **unresolved)]
    content = with_further(make_report(6, probes=3, later=later)).model_dump()
    content["probes"]["items"][1] |= {"prompt": "Die Hauptstadt 法国的首都是\u2028", "target": " \U0001f600\t\"'\\"}
    content["diagnoses"][0]["lens"]["top_tokens"] = [[" a", "<b>", "的", " ", "\n", "\U0001f600", " c"]] * 3
    content["training"] = {
        "steps": 7,
        "seconds": 1.25,
        "peak_memory_bytes": 2**40,
        "peak_memory_of": "process",
        "trainable_parameters": 3,
        "train_loss": 0.1 + 0.2,
    }
    return LayerTracerReport.model_validate(content)


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def assert_one_line(error: pytest.ExceptionInfo) -> None:
    assert str(error.value).strip()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


# -- round trip ----------------------------------------------------------------------------------------------------------


def test_a_saved_report_is_loaded_as_it_was(report, tmp_path):
    report.save_json(tmp_path / "deep" / "folder")
    path = tmp_path / "deep" / "folder" / REPORT_FILE
    for source in (path.parent, str(path.parent), path, str(path), os.path.relpath(path.parent)):
        loaded = LayerTracerReport.load(source)
        assert loaded == report
        assert type(loaded) is LayerTracerReport
    assert path.read_text(encoding="utf-8").endswith("}\n")
    assert json.loads(path.read_text(encoding="utf-8"))["schema_version"] == SCHEMA_VERSION


def test_saving_what_was_loaded_writes_the_same_bytes(report, tmp_path):
    report.save_json(tmp_path)
    first = (tmp_path / REPORT_FILE).read_bytes()
    LayerTracerReport.load(tmp_path).save_json(tmp_path)
    assert (tmp_path / REPORT_FILE).read_bytes() == first


finite = st.floats(0, 1e300, allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(
    sensitivity=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    influence=st.lists(st.floats(-1e300, 1e300), min_size=4, max_size=4),
    text=st.text(st.characters(exclude_categories=["Cs"])),
    durations=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), finite, max_size=3),
)
def test_numbers_and_text_survive_exactly(make_report, tmp_path_factory, sensitivity, influence, text, durations):
    report = LayerTracerReport.model_validate(
        make_report(
            4,
            sensitivity__mean=sensitivity,
            block_influence=influence,
            notes=[text],
        ).model_dump()
    )
    report.first.durations = durations
    folder = tmp_path_factory.getbasetemp() / "exact"
    report.save_json(folder)
    assert LayerTracerReport.load(folder) == report


def test_a_report_without_optional_parts_survives(make_report, tmp_path):
    bare = make_report(1, probes=1, plan=None, lens={"valid": False, "reason": "none"}).model_dump()
    report = LayerTracerReport.model_validate(bare)
    report.save_json(tmp_path)
    assert LayerTracerReport.load(tmp_path) == report


def test_saving_everything_writes_report_picture_and_card(report, tmp_path):
    (tmp_path / "README.md").write_text("# Mine\n\nKept.\n", encoding="utf-8")
    report.save(tmp_path)
    assert LayerTracerReport.load(tmp_path) == report
    assert (tmp_path / "layertracer_report.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "Kept." in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "layertracer_report.json",
        "layertracer_report.png",
    ]


# -- other versions ------------------------------------------------------------------------------------------------------


def test_a_newer_schema_is_refused_with_the_remedy(report):
    content = report.model_dump(mode="json") | {"schema_version": SCHEMA_VERSION + 1, "sensitivity": "something new"}
    with pytest.raises(LayerTracerError, match=rf"has schema version {SCHEMA_VERSION + 1}.*pip install -U") as caught:
        LayerTracerReport.from_dict(content)
    assert_one_line(caught)


def test_unknown_fields_of_the_same_schema_are_dropped(report):
    content = report.model_dump(mode="json") | {"colour": "blue"}
    content["plans"][0]["plan"]["mood"] = "good"
    content["diagnoses"][1]["lens"]["mood"] = "good"
    content["settings"]["mood"] = "good"
    assert LayerTracerReport.from_dict(content) == report


@pytest.mark.parametrize("version", [None, "1", 1.0, True, [1], {}])
def test_a_schema_version_that_is_no_whole_number_is_refused(report, version):
    content = report.model_dump(mode="json") | {"schema_version": version}
    with pytest.raises(LayerTracerError, match="has no schema_version") as caught:
        LayerTracerReport.from_dict(content)
    assert_one_line(caught)


# -- not a report --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_refused(tmp_path, content):
    (tmp_path / REPORT_FILE).write_bytes(content)
    assert "not JSON" in refusal(LayerTracerReport.load, tmp_path)


@pytest.mark.parametrize("content", OTHER_JSON.values(), ids=OTHER_JSON)
def test_json_that_is_no_report_is_refused(tmp_path, content):
    (tmp_path / REPORT_FILE).write_bytes(content)
    assert "is not a LayerTracer report: it has no schema_version" in refusal(LayerTracerReport.load, tmp_path)


def test_every_cut_of_a_report_is_refused(report, tmp_path):
    text = report.model_dump_json(indent=1).encode()
    for length in range(0, len(text) - 1, 97):
        (tmp_path / REPORT_FILE).write_bytes(text[:length])
        with pytest.raises(LayerTracerError, match="not JSON"):
            LayerTracerReport.load(tmp_path)


REQUIRED = ["created", "versions", "model", "settings", "probes", "diagnoses"]


@pytest.mark.parametrize("field", REQUIRED)
def test_a_report_without_a_required_part_is_refused_by_its_name(report, field):
    content = report.model_dump(mode="json")
    del content[field]
    with pytest.raises(LayerTracerError, match=rf"{field}: Field required \(1 problem") as caught:
        LayerTracerReport.from_dict(content)
    assert_one_line(caught)


@pytest.mark.parametrize(
    "place",
    [
        "diagnoses.0.sensitivities.mask.mean",
        "diagnoses.0.sensitivities.mask.stderr",
        "diagnoses.0.sensitivities.mask.covariance",
        "diagnoses.0.sensitivities.mask.covariance.3",
        "diagnoses.0.sensitivities.mask.by_task.facts",
        "diagnoses.0.block_influence",
        "diagnoses.0.task_particle.per_probe",
        "diagnoses.0.scores.probability",
        "diagnoses.0.scores.correct",
        "probes.items",
        "diagnoses.0.lens.mean_probability",
        "diagnoses.0.lens.stderr",
        "diagnoses.0.lens.per_probe",
        "diagnoses.0.lens.by_task.facts",
        "diagnoses.0.lens.top_tokens",
        "diagnoses.0.lens.top_tokens.1",
        "diagnoses.0.lens.control.mean_probability",
        "diagnoses.0.lens.control.stderr",
        "diagnoses.0.lens.without_norm.mean_probability",
        "diagnoses.0.context.mean",
        "diagnoses.0.task_particle.max_ratio.per_probe",
        "diagnoses.1.lens.mean_probability",
        "diagnoses.1.sensitivities.mask.mean",
        "diagnoses.1.sensitivities.mask.stderr",
        "model.layers",
    ],
)
@pytest.mark.parametrize("longer", [True, False])
def test_lists_of_another_length_are_refused(report, place, longer):
    content = report.model_dump(mode="json")
    *parents, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    holder = content
    for parent in parents:
        holder = holder[parent]
    holder[last] = [*holder[last], holder[last][-1]] if longer else holder[last][:-1]
    with pytest.raises(LayerTracerError, match=r"entries|layers") as caught:
        LayerTracerReport.from_dict(content)
    assert_one_line(caught)


@pytest.mark.parametrize(
    "place",
    [
        "diagnoses.0.sensitivities.mask.contenders.0",
        "diagnoses.0.lens.control.layers.0",
        "diagnoses.0.lens.without_norm.layer",
        "diagnoses.0.task_particle.max_ratio.layer",
        "diagnoses.0.task_particle.layer",
        "diagnoses.0.task_particle.mean_curve_layer",
        "diagnoses.0.task_particle.quartiles.1",
        "diagnoses.0.task_particle.interval.1",
        "diagnoses.0.task_particle.per_probe.0",
        "diagnoses.0.task_particle.by_task.facts.layer",
        "diagnoses.1.task_particle.mean_curve_layer",
        "diagnoses.1.task_particle.interval.1",
    ],
)
def test_a_layer_that_does_not_exist_is_refused_wherever_it_is_named(report, place):
    content = report.model_dump(mode="json")
    *parents, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    holder = content
    for parent in parents:
        holder = holder[parent]
    holder[last] = 10**12
    with pytest.raises(LayerTracerError, match=r"layer 1e\+12 does not exist") as caught:
        LayerTracerReport.from_dict(content)
    assert_one_line(caught)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "-0.1", "1.1", '"0.5x"', "null"])
def test_values_that_are_no_bits_are_refused(report, tmp_path, value):
    content = report.model_dump(mode="json")
    content["diagnoses"][0]["sensitivities"]["mask"]["mean"][2] = "HERE"
    (tmp_path / REPORT_FILE).write_text(json.dumps(content).replace('"HERE"', value), encoding="utf-8")
    with pytest.raises(LayerTracerError, match=r"sensitivities\.mask\.mean\.2") as caught:
        LayerTracerReport.load(tmp_path)
    assert_one_line(caught)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["block_influence", "durations", "train_loss"])
def test_nan_is_refused_where_any_number_is_allowed(report, field, value):
    content = report.model_dump()
    if field == "block_influence":
        content["diagnoses"][0][field][0] = value
    elif field == "durations":
        content["diagnoses"][0][field]["x"] = value
    else:
        content["training"][field] = value
    with pytest.raises(LayerTracerError, match="finite number"):
        LayerTracerReport.from_dict(content)


def test_a_plan_for_another_depth_is_refused(report, make_plan_for):
    plan = {"step": 0, "plan": make_plan_for(5).model_dump(mode="json")}
    content = report.model_dump(mode="json") | {"plans": [plan]}
    with pytest.raises(LayerTracerError, match="the plan is for 5 layers, the model has 6") as caught:
        LayerTracerReport.from_dict(content)
    assert_one_line(caught)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), value=junk)
def test_whatever_stands_in_a_field_the_report_is_read_or_refused(report, data, value):
    content = copy.deepcopy(report.model_dump(mode="json"))
    holder, key = content, None
    while key is None or (isinstance(holder[key], dict | list) and holder[key] and data.draw(st.booleans())):
        holder = holder if key is None else holder[key]
        key = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
    holder[key] = value
    try:
        LayerTracerReport.from_dict(content).model_dump_json()
    except LayerTracerError as error:
        assert "\n" not in str(error)  # noqa: PT017


# -- places --------------------------------------------------------------------------------------------------------------


def test_a_folder_without_a_report_is_refused(tmp_path):
    with pytest.raises(ReportNotFoundError, match=f"holds no {REPORT_FILE}") as caught:
        LayerTracerReport.load(tmp_path)
    assert_one_line(caught)
    with pytest.raises(ReportNotFoundError, match=f"holds no {REPORT_FILE}"):
        LayerTracerReport.load(tmp_path / REPORT_FILE)


@pytest.mark.parametrize(
    "source",
    [
        "/no/such/folder",
        "no/such",
        "nothing",
        "no/such/folder/at/all",
        "~",
        "",
        " ",
        "a\0b",
        "a" * 5000,
        "a b/c",
        "../x",
    ],
)
def test_a_place_that_does_not_exist_is_refused_offline(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReportNotFoundError) as caught:
        LayerTracerReport.load(source)
    assert "\n" not in str(caught.value)


def test_a_report_that_may_not_be_read_is_refused(report, tmp_path, monkeypatch):
    report.save_json(tmp_path)

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(LayerTracerError, match=r"Could not read .*: Permission denied") as caught:
        LayerTracerReport.load(tmp_path)
    assert_one_line(caught)


# -- whole or not at all -------------------------------------------------------------------------------------------------


def assert_old_report_survives(folder, before: bytes) -> None:
    assert (folder / REPORT_FILE).read_bytes() == before
    assert [path.name for path in folder.iterdir()] == [REPORT_FILE]


@pytest.fixture
def saved(report, tmp_path):
    """A folder with a report, a changed report to save over it, and the bytes that are there."""
    report.save_json(tmp_path)
    return tmp_path, report.model_copy(update={"notes": ["new"] * 10_000}), (tmp_path / REPORT_FILE).read_bytes()


def test_a_file_that_may_not_grow_leaves_the_old_report(saved):
    """The kernel itself refuses in the middle of the file: its size limit does what a full disk does."""
    folder, changed, before = saved
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(LayerTracerError, match=r"Could not write .*unchanged") as caught:
            changed.save_json(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_one_line(caught)
    assert_old_report_survives(folder, before)
    changed.save_json(folder)
    assert LayerTracerReport.load(folder) == changed


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod", "fdopen"])
def test_a_full_disk_leaves_the_old_report(saved, monkeypatch, call):
    folder, changed, before = saved

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(LayerTracerError, match="No space left on device") as caught:
            changed.save_json(folder)
    assert_one_line(caught)
    assert_old_report_survives(folder, before)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_interrupt_leaves_the_old_report(saved, monkeypatch, call):
    folder, changed, before = saved

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, call, interrupt)
        with pytest.raises(KeyboardInterrupt):
            changed.save_json(folder)
    assert_old_report_survives(folder, before)


def test_a_folder_that_is_a_file_is_refused(report, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(LayerTracerError, match="Could not write") as caught:
            report.save_json(folder)
        assert_one_line(caught)
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_full_disk_during_the_whole_save_is_one_error(report, tmp_path, monkeypatch):
    report.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LayerTracerError, match="No space left on device") as caught:
        report.model_copy(update={"notes": ["new"]}).save(tmp_path)
    assert_one_line(caught)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_file_has_the_mode_that_open_would_give_it(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "ours", b"x")
        (tmp_path / "theirs").write_bytes(b"x")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "theirs")}
    assert modes["ours"] == modes["theirs"]


def test_a_process_that_is_killed_while_it_saves_leaves_a_whole_report(report, tmp_path):
    """A child saves two reports in turn, without pause, and is killed at a random moment; thirty times or more.

    A slow disk takes longer than the first pauses for a single save: they grow until a kill has hit each kind of moment.
    """
    report.save_json(tmp_path / "start")
    program = """
        import os, random, signal, sys, time
        from pathlib import Path
        from hf_layertracer.report import LayerTracerReport

        start, folder = Path(sys.argv[1]), Path(sys.argv[2])
        first = LayerTracerReport.load(start)
        second = first.model_copy(update={"notes": ["long" * 100] * 3000})
        first.save_json(folder)
        clock, seen, leftovers = random.Random(0), set(), 0
        for kill in range(300):
            if kill >= 30 and len(seen) == 2 and leftovers:
                break
            child = os.fork()
            if child == 0:
                while True:
                    second.save_json(folder)
                    first.save_json(folder)
            time.sleep(clock.uniform(0.005, 0.05 + kill / 300))
            os.kill(child, signal.SIGKILL)
            assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
            found = LayerTracerReport.load(folder)
            assert found in (first, second)
            seen.add(found == second)
            leftovers = len(list(folder.iterdir())) - 1
        print(len(seen), leftovers)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "start"), str(tmp_path / "folder")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    seen, leftovers = map(int, result.stdout.split())
    assert seen == 2, "the kills did not fall between different saves, so they prove nothing"
    assert leftovers > 0, "no kill fell into the middle of a save, so they prove nothing"
