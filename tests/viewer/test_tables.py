"""Rows of a report, for tables on a page and for CSV files."""

from __future__ import annotations

import csv
import io

import pytest
from support.made_reports import with_further

from hf_layertracer.viewer.tables import (
    ORDERS,
    PAGE,
    choose_probes,
    layer_csv,
    layer_table,
    page_of,
    pages,
    particle_sentence,
    probe_table,
    reading_table,
    visible,
)


def asked(probabilities, tasks=None):
    """The changes that give a report these probes and answers."""
    tasks = tasks or ["facts"] * len(probabilities)
    items = [
        {"prompt": f"prompt {i}", "target": f" answer {i}", "task": task, "tokens": 3} for i, task in enumerate(tasks)
    ]
    return {
        "probes__items": items,
        "scores__probability": probabilities,
        "scores__correct": [p > 0.5 for p in probabilities],
    }


def test_a_row_a_layer_with_every_value(make_report):
    report = make_report()
    header, rows = layer_table(report)
    assert len(rows) == 6
    assert all(len(row) == len(header) for row in rows)
    first = dict(zip(header, rows[0], strict=True))
    assert first["sensitivity (bits)"] == f"{report.sensitivity.mean[0]:.4f}"
    assert first["lens probability"] == f"{report.lens.mean_probability[1]:.4f}"
    assert (first["plan"], rows[-1][-1]) == ("trained", "frozen")


def test_what_was_not_measured_has_no_column(make_report):
    header, rows = layer_table(make_report(lens={"valid": False, "reason": "x"}, plan=None, sensitivity__draws=1))
    assert "lens probability" not in header
    assert "plan" not in header
    assert {row[4] for row in rows} == {"–"}
    assert all(len(row) == len(header) for row in rows)


def test_errors_of_a_single_probe_are_not_known_and_not_zero(make_report):
    report = make_report(lens__stderr=[0.0] * 7, sensitivity__draws=1, sensitivity__stderr=[0.0] * 6)
    header, rows = layer_table(report)
    for column in ("standard error", "its standard error"):
        assert {row[header.index(column)] for row in rows} == {"–"}
    written = list(csv.DictReader(io.StringIO(layer_csv(report), newline="")))
    assert {row[name] for row in written for name in ("sensitivity_stderr", "lens_stderr")} == {""}
    known = list(csv.DictReader(io.StringIO(layer_csv(make_report()), newline="")))
    assert [float(row["lens_stderr"]) for row in known] == make_report().lens.stderr[1:]


def test_the_csv_reads_back_as_the_report(make_report):
    report = make_report(history=True)
    rows = list(csv.DictReader(io.StringIO(layer_csv(report), newline="")))
    assert [float(row["sensitivity"]) for row in rows] == report.first.sensitivity.mean
    assert [float(row["sensitivity_stderr"]) for row in rows] == report.first.sensitivity.stderr
    assert [float(row["lens_probability"]) for row in rows] == report.first.lens.mean_probability[1:]
    assert [float(row["sensitivity: facts"]) for row in rows] == report.first.sensitivity.by_task["facts"]
    assert [float(row["sensitivity after step 20"]) for row in rows] == report.latest.sensitivity.mean
    assert [int(row["layer"]) for row in rows] == list(range(6))


def test_the_csv_holds_every_perturbation_and_the_context(make_report):
    report = with_further(make_report())
    rows = list(csv.DictReader(io.StringIO(layer_csv(report), newline="")))
    assert [float(row["sensitivity (skip)"]) for row in rows] == report.first.sensitivities["skip"].mean
    assert [float(row["context_sensitivity"]) for row in rows] == report.first.context.delta


def test_no_cell_of_the_csv_is_a_formula(full_of, markup):
    for formula in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r\n=1", " =1", markup):
        for row in csv.reader(io.StringIO(layer_csv(full_of(formula)), newline="")):
            for cell in row:
                assert cell[:1] not in ("=", "+", "@", "\t", "\r")
                assert not cell.startswith("-") or float(cell) <= 0


def test_probes_are_chosen_by_task_and_text_and_put_in_order(make_report):
    report = make_report(
        probes=4,
        **asked([0.5, 0.1, 0.9, 0.3], ["facts", "sums", "facts", "sums"]),
        probes__tasks={"facts": 2, "sums": 2},
        task_particle__per_probe=[3, None, 1, 2],
    )
    assert choose_probes(report) == [0, 1, 2, 3]
    assert choose_probes(report, task="sums") == [1, 3]
    assert choose_probes(report, text="PROMPT 2") == [2]
    assert choose_probes(report, text="answer 3") == [3]
    assert choose_probes(report, text=".*") == []
    assert choose_probes(report, order=ORDERS[1]) == [1, 3, 0, 2]
    assert choose_probes(report, order=ORDERS[2]) == [2, 0, 3, 1]
    assert choose_probes(report, order=ORDERS[3]) == [2, 3, 0, 1]


def test_pages_hold_all_probes_once():
    chosen = list(range(2 * PAGE + 3))
    assert pages(chosen) == 3
    assert [probe for page in (1, 2, 3) for probe in page_of(chosen, page)] == chosen
    assert page_of(chosen, 99) == page_of(chosen, 3)
    assert page_of(chosen, -5) == page_of(chosen, 1)
    assert (pages([]), page_of([], 1)) == (1, [])


def test_the_table_of_probes_says_what_the_lens_reads(make_report):
    report = make_report(8, probes=2, **asked([0.25, 0.75]), task_particle__per_probe=[None, 5])
    header, rows = probe_table(report, [1, 0])
    first, second = (dict(zip(header, row, strict=True)) for row in rows)
    assert (first["probe"], first["its probability"], first["Task Particle"]) == ("1", "0.7500 (likeliest)", "5")
    assert second["Task Particle"] == "unresolved"
    assert first["reads after layer 7"] == "␣t8"
    assert [name for name in header if name.startswith("reads")] == [f"reads after layer {i}" for i in (1, 3, 5, 7)]


def test_the_reading_of_a_probe_has_a_row_for_each_layer(make_report):
    report = make_report(probes=2)
    header, rows = reading_table(report, 1)
    assert [row[0] for row in rows] == ["embedding", *(f"layer {i}" for i in range(6))]
    assert [float(row[1]) for row in rows] == report.lens.per_probe[1]
    assert rows[3][2:] == ["␣t3 0.50", "␣u 0.25", "␣v 0.12"]
    report.first.lens.likely = None  # as in reports that are older, or have too many readings
    assert reading_table(report, 1)[1][3][2:] == ["␣t3"]
    report.first.lens.top_tokens = None
    assert reading_table(report, 0)[0] == header[:2]
    assert all(len(row) == 2 for row in reading_table(report, 0)[1])


def test_white_space_in_tokens_is_visible():
    assert [visible(token) for token in (" the", "\n", "\t", "", "\x00", "的")] == [
        "␣the", "⏎", "⇥", "(not printable)", "(not printable)", "的",
    ]  # fmt: skip


def test_the_task_particle_in_words(make_report):
    assert particle_sentence(make_report(11)) == "layer 7, 95 % interval 6.5 to 7.5; 3 of 4 probes resolved"
    none = {"layer": None, "quartiles": None, "interval": None, "mean_curve_layer": None, "unresolved": 4}
    absent = {**none, "per_probe": [None] * 4, "by_task": {}}
    assert particle_sentence(make_report(task_particle=absent)) == "unresolved"
    invalid = make_report(task_particle=absent, lens={"valid": False, "reason": "x"})
    assert particle_sentence(invalid) == "the lens is not valid for this model"


@pytest.mark.parametrize("sign", "=+-@＝＋－＠")
def test_no_cell_is_a_formula_in_half_or_full_width(make_report, sign):
    report = make_report()
    report.model.layers[0].kind = f"{sign}1+1"
    rows = list(csv.reader(io.StringIO(layer_csv(report), newline="")))
    assert f"'{sign}1+1" in rows[1]
