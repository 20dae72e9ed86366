"""Hostile reports: a clear message each, and nothing else is run, read or written."""

from __future__ import annotations

import copy
import json
import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.malformed import NOT_JSON, OTHER_JSON, refusal

from hf_layertracer.errors import LayerTracerError, ReportNotFoundError
from hf_layertracer.report import REPORT_FILE
from hf_layertracer.viewer import report_sources
from hf_layertracer.viewer.report_sources import find_reports, parse_report, read_report


def bytes_of(content: object) -> bytes:
    return json.dumps(content).encode()


def changed(report, place: str, value: object) -> bytes:
    """A report's file with another value at a dotted place."""
    content = report.model_dump(mode="json")
    *parents, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    holder = content
    for parent in parents:
        holder = holder[parent]
    holder[last] = value
    return bytes_of(content)


def refused(content: bytes) -> str:
    message = refusal(parse_report, content, "upload.json")
    assert message.startswith("upload.json")
    return message


# -- what is no report ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_refused(content):
    assert "not JSON" in refused(content)


@pytest.mark.parametrize("content", OTHER_JSON.values(), ids=OTHER_JSON)
def test_json_of_something_else_is_refused(content):
    assert "is not a LayerTracer report" in refused(content)


def test_a_newer_report_is_refused_with_the_remedy(make_report):
    assert "pip install -U" in refused(changed(make_report(), "schema_version", 99))


# -- too much ------------------------------------------------------------------------------------------------------------


def test_a_file_is_not_read_beyond_the_limit(tmp_path):
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(100 * 2**30)  # a hole: no disk holds it, and no memory could
    with pytest.raises(LayerTracerError, match=r"huge\.json is too large: reports of up to 16 MiB"):
        read_report(path)


@pytest.mark.parametrize("unit", [b"[],", b"{},", b"[[", b'{"a":'])
def test_a_file_of_brackets_is_refused_before_it_is_parsed(monkeypatch, unit):
    monkeypatch.setattr(json, "loads", lambda *_: pytest.fail("parsed"))
    assert "brackets" in refused(b"[" + unit * 1_000_001 + b"0]")


@pytest.mark.parametrize("depth", [41, 500, 5_000, 400_000])
@pytest.mark.parametrize("place", ["settings", "unknown", "plans.0.plan.options"])
def test_deep_nesting_is_refused_wherever_it_stands(make_report, depth, place):
    content = changed(make_report(), place, "HERE").replace(b'"HERE"', b'{"a":' + b"[" * depth + b"]" * depth + b"}")
    assert "nested" in refused(content) or "not JSON" in refused(content)
    assert sys.getrecursionlimit() <= 10_000, "the limit of the interpreter was raised"


@pytest.mark.parametrize(
    "place",
    [
        "model.id",
        "plans.0.plan.reason",
        "probes.items.0.prompt",
        "diagnoses.0.lens.top_tokens.0.0",
        "settings.x",
        "unknown",
    ],
)
def test_megabytes_in_a_field_are_refused(make_report, place):
    assert "text of 2,000,000 characters" in refused(changed(make_report(), place, "x" * 2_000_000))


def test_megabytes_in_a_key_are_refused(make_report):
    assert "characters" in refused(changed(make_report(), "settings", {"k" * 1_000_000: 1}))


def test_more_layers_than_a_page_can_show_are_refused(make_report):
    assert "1200 layers; up to 1000" in refused(bytes_of(make_report(1200, 1).model_dump(mode="json")))


def test_more_parameters_than_a_page_can_plan_for_are_refused(make_report):
    names = {f"w{number}": 1 for number in range(100_001)}
    assert "100,000 parameters" in refused(changed(make_report(), "model.layers.0.parameters", names))


# -- wrong values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b'"0.5"x', b"null", b"[]", b"1e31"]
)
@pytest.mark.parametrize(
    "place",
    [
        "diagnoses.0.sensitivities.mask.mean.0",
        "diagnoses.0.sensitivities.mask.stderr.0",
        "diagnoses.0.lens.per_probe.0.0",
        "diagnoses.0.lens.mean_probability.0",
    ],
)
def test_numbers_that_are_none_are_refused(make_report, place, value):
    refused(changed(make_report(), place, "HERE").replace(b'"HERE"', value))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("model.layers.0.parameters.w", 10**400),
        ("plans.0.plan.savings.flops_per_token", 2**63),
        ("diagnoses.0.task_particle.layer", 1e9),
        ("diagnoses.0.task_particle.per_probe.0", 10**12),
        ("diagnoses.0.sensitivities.mask.contenders.0", -1),
        ("plans.0.plan.trained_layers", list(range(10**5))),
        ("diagnoses.0.sensitivities.mask.by_task.facts", [0.1]),
        ("diagnoses.1.sensitivities.mask.mean", []),
        ("diagnoses.0.lens.top_tokens", [[" a"] * 7]),
        ("probes.count", 10**9),
        ("model.shared", {"w": [-1]}),
    ],
)
def test_values_that_do_not_fit_the_model_are_refused(make_report, place, value):
    refused(changed(make_report(history=True), place, value))


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), value=junk)
def test_whatever_stands_in_a_field_every_view_is_drawn_or_the_report_is_refused(
    make_report, draw_everything, data, value
):
    content = copy.deepcopy(make_report(history=True).model_dump(mode="json"))
    holder, key = content, None
    while key is None or (isinstance(holder[key], dict | list) and holder[key] and data.draw(st.booleans())):
        holder = holder if key is None else holder[key]
        key = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
    holder[key] = value
    try:
        report = parse_report(bytes_of(content))
    except LayerTracerError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    draw_everything(report)


def test_half_a_surrogate_ends_in_no_page(make_report, draw_everything):
    for place in ("settings.x", "model.id", "plans.0.plan.reason"):
        refused(changed(make_report(), place, "HERE").replace(b"HERE", b"\\ud800"))
    whole = changed(make_report(), "model.id", "HERE").replace(b"HERE", b"\\ud83d\\ude00")
    for text in draw_everything(parse_report(whole)):
        text.encode()


# -- places on this machine ----------------------------------------------------------------------------------------------


def test_a_folder_is_searched_but_no_link_and_nothing_hidden(tmp_path, make_report, write_report):
    secret = write_report(make_report(), "outside/secret")
    write_report(make_report(), "tree/a/deep")
    write_report(make_report(), "tree/.hidden")
    (tmp_path / "tree" / "b").mkdir()
    (tmp_path / "tree" / "b" / REPORT_FILE).symlink_to(secret)
    (tmp_path / "tree" / "c").symlink_to(secret.parent)
    found = find_reports([tmp_path / "tree"])
    assert list(found.values()) == [tmp_path / "tree" / "a" / "deep" / REPORT_FILE]
    assert list(found) == ["deep"]


def test_equal_names_are_told_apart(make_report, write_report):
    first, second = write_report(make_report(), "x/run"), write_report(make_report(), "y/run")
    assert list(find_reports([first, second.parent])) == ["run", "run (2)"]


def test_more_reports_or_folders_than_can_be_shown_are_refused_and_not_left_out(
    tmp_path, monkeypatch, make_report, write_report
):
    for number in range(5):
        write_report(make_report(), f"tree/{number}")
    assert len(find_reports([tmp_path / "tree"])) == 5
    monkeypatch.setattr(report_sources, "_MAX_FOUND", 4)
    with pytest.raises(LayerTracerError, match="holds 5 reports; up to 4"):
        find_reports([tmp_path / "tree"])
    monkeypatch.setattr(report_sources, "_MAX_FOLDERS", 2)
    with pytest.raises(LayerTracerError, match="over 2 folders"):
        find_reports([tmp_path / "tree"])


def test_a_pipe_named_like_a_report_is_no_report(tmp_path, make_report, write_report):
    write_report(make_report(), "tree/real")
    (tmp_path / "tree/pipe").mkdir()
    pipe = tmp_path / "tree/pipe/layertracer_report.json"
    os.mkfifo(pipe)
    assert list(find_reports([tmp_path / "tree"])) == ["real"]
    with pytest.raises(LayerTracerError, match="not a regular file"):
        read_report(pipe)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"schema_version":2', '"schema_version":2,"schema_version":2', "stands twice"),
        ('"schema_version":2', '"schema_version":0', "never was"),
        ('"schema_version":2', '"schema_version":-5', "never was"),
        ('"schema_version":2', '"schema_version":true', "no schema_version"),
        ('"count":4', '"count":"4"', "not a valid LayerTracer report"),
        ('"tied":true', '"tied":1', "not a valid LayerTracer report"),
        ('"step":0', '"step":false', "not a valid LayerTracer report"),
    ],
)
def test_what_is_written_loosely_is_refused(make_report, before, after, message):
    content = make_report(model__tied=True).model_dump_json()
    assert before in content
    assert parse_report(content.encode()) is not None
    with pytest.raises(LayerTracerError, match=message):
        parse_report(content.replace(before, after, 1).encode())


def test_more_parameters_than_any_model_has_are_refused_in_one_line(make_report):
    content = make_report().model_dump()
    content["model"]["embeddings"] = {"embed.weight": 2**62}
    with pytest.raises(LayerTracerError, match="no model has") as caught:
        parse_report(json.dumps(content).encode())
    assert "\n" not in str(caught.value)


def test_what_is_neither_here_nor_an_id_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in ("nothing.json", "../../etc", "/etc/no-such", "a b/c", "~", "x" * 90 + "--/y", "a/../b", "a/b/../c"):
        with pytest.raises(ReportNotFoundError, match="neither a report here nor the id") as caught:
            find_reports([source])
        assert "\n" not in str(caught.value)
    with pytest.raises(ReportNotFoundError, match="holds no"):
        find_reports([tmp_path])
    assert find_reports(["someone/some-report"]) == {"someone/some-report": "someone/some-report"}


def test_a_file_that_is_a_folder_or_may_not_be_read_is_one_line(tmp_path):
    with pytest.raises(LayerTracerError, match=r"Could not read .*: Is a directory"):
        read_report(tmp_path)
    with pytest.raises(LayerTracerError, match="No such file"):
        read_report(tmp_path / "a\nb")
