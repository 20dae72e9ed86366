"""What the interactive pictures show, read back from their traces."""

from __future__ import annotations

import json

import pytest

from hf_layertracer.report.palette import ORANGE, SKY
from hf_layertracer.viewer.figures import (
    history_figure,
    plan_figure,
    sensitivity_figure,
)
from hf_layertracer.viewer.glossary import GLOSSARY
from hf_layertracer.viewer.lens_figures import lens_figure, probes_figure


def text_of(figure) -> str:
    return figure.to_json()


def flat(html: str) -> str:
    return html.replace("<br>", " ").replace("<i>", "").replace("</i>", "")


@pytest.mark.parametrize("num_layers", [1, 6, 100])
def test_every_layer_has_a_bar_with_its_standard_error(make_report, num_layers):
    report = make_report(num_layers)
    (bars,) = sensitivity_figure(report).data
    assert list(bars.x) == list(range(num_layers))
    assert list(bars.y) == report.sensitivity.mean
    assert list(bars.error_y.array) == report.sensitivity.stderr
    assert len(bars.hovertext) == num_layers


def test_kinds_of_layers_differ_in_colour_and_are_named(make_report):
    kinds = ["linear_attention", "full_attention"] * 3
    report = make_report(model__layers=[{"kind": kind, "parameters": {}} for kind in kinds])
    figure = sensitivity_figure(report)
    assert [(trace.name, list(trace.x)) for trace in figure.data] == [
        ("linear_attention", [0, 2, 4]),
        ("full_attention", [1, 3, 5]),
    ]
    assert figure.data[0].marker.color != figure.data[1].marker.color
    assert [trace.width for trace in figure.data] == [0.8, 0.8], "bars of a rare kind would hide their neighbours"
    assert figure.layout.showlegend
    assert not sensitivity_figure(make_report()).layout.showlegend


def test_the_vulnerable_layer_its_contenders_and_what_trains_are_marked(make_report):
    report = make_report(sensitivity__contenders=[0, 2])
    figure = sensitivity_figure(report)
    assert [(sign.x, sign.text) for sign in figure.layout.annotations] == [(0, "▼"), (2, "▽")]
    assert [(band.x0, band.x1) for band in figure.layout.shapes] == [(-0.5, 2.5)]
    assert "▽ contender; shaded: trained" in flat(figure.layout.title.text)
    bare = sensitivity_figure(make_report(plan=None))
    assert not bare.layout.shapes
    assert "shaded" not in flat(bare.layout.title.text)


def test_a_single_draw_claims_no_error(make_report):
    figure = sensitivity_figure(make_report(sensitivity__draws=1, sensitivity__stderr=[0.0] * 6))
    assert figure.data[0].error_y.array is None
    assert "±" not in text_of(figure).replace("\\u00b1", "±")
    assert "no standard error" in flat(figure.layout.title.text)


def test_chosen_tasks_are_drawn_over_both(make_report):
    report = make_report(sensitivity__by_task={"facts": [0.9] * 6, "sums": [0.1] * 6})
    figure = sensitivity_figure(report, ["sums", "no such task"])
    assert [list(trace.y) for trace in figure.data[1:]] == [[0.1] * 6]
    assert sensitivity_figure(report, ["facts"]).layout.yaxis.range[1] > 0.9
    curves = {trace.name: list(trace.y) for trace in lens_figure(report, ["sums"]).data}
    assert curves["sums"] == report.lens.by_task["sums"]
    assert "facts" not in curves


def test_the_lens_begins_with_the_embedding_and_has_a_band(make_report):
    report = make_report()
    band, mean, particle = lens_figure(report).data
    assert list(mean.x) == [-1, 0, 1, 2, 3, 4, 5]
    assert list(mean.y) == report.lens.mean_probability
    top = report.lens.mean_probability[-1] + report.lens.stderr[-1]
    assert max(band.y) == pytest.approx(top)
    assert len(band.x) == 2 * 7
    assert set(particle.x) == {report.task_particle.layer}
    figure = lens_figure(report)
    assert figure.layout.xaxis.ticktext[:2] == ("emb", "0")
    (interval,) = figure.layout.shapes
    assert (interval.x0, interval.x1) == report.task_particle.interval


def test_one_probe_is_drawn_by_its_own_curve(make_report):
    report = make_report(probes=3, lens__per_probe=[[i / 10] * 7 for i in range(3)])
    curves = {trace.name: list(trace.y) for trace in lens_figure(report, probes=[2, 99, -1]).data}
    assert curves["probe 2"] == [0.2] * 7
    assert "probe 99" not in curves
    assert "probe -1" not in curves


def test_without_a_valid_lens_its_reason_stands_in_place_of_curves(make_report):
    report = make_report(lens={"valid": False, "reason": "the head is <odd>"})
    figure = lens_figure(report)
    assert not figure.data
    assert "the head is &lt;odd&gt;" in flat(figure.layout.annotations[0].text)
    assert "not read" in flat(probes_figure(report, [0]).layout.annotations[0].text)


def test_the_plan_is_a_stack_in_order(make_report, make_plan_for):
    plan = make_plan_for(4, trained_layers=[0, 2], frozen_layers=[1, 3], train_embeddings=True)
    figure = plan_figure(plan, ["full_attention"] * 4, [10, 20, 30, 4_000_000])
    trained, frozen = figure.data
    assert list(trained.y) == ["embedding", "layer 0", "layer 2"]
    assert list(frozen.y) == ["layer 1", "layer 3", "final norm", "head"]
    assert (trained.marker.color, frozen.marker.color) == (ORANGE, SKY)
    assert list(figure.layout.yaxis.categoryarray) == [
        "embedding",
        *(f"layer {i}" for i in range(4)),
        "final norm",
        "head",
    ]
    assert "4 M parameters" in frozen.hovertext[1]


def test_a_plan_of_patterns_trains_in_part(make_plan_for):
    assert plan_figure(make_plan_for(4, patterns=["mlp"]), ["x"] * 4, [1] * 4).data[0].name == "trained in part"


def test_the_history_begins_with_the_first_diagnosis(make_report):
    report = make_report(history=True)
    heat, particles = history_figure(report).data
    assert list(heat.y) == ["0", "10", "20"]
    assert [list(row) for row in heat.z] == [d.sensitivity.mean for d in report.diagnoses]
    assert list(particles.x) == ["0", "10", "20"]
    assert list(particles.y) == [report.first.task_particle.layer, 1.0, 1.0]
    assert particles.error_y.array[1] == 1.0
    assert particles.error_y.arrayminus[1] == 0.0


def test_the_heat_map_shows_only_the_probes_asked_for_with_their_tokens(make_report):
    report = make_report(probes=40)
    (heat,) = probes_figure(report, [7, 3]).data
    assert list(heat.y) == ["7", "3"]
    assert [list(row) for row in heat.z] == [report.lens.per_probe[7], report.lens.per_probe[3]]
    assert "likeliest token: ' t2'" in heat.hovertext[0][2]
    assert "after layer 1" in heat.hovertext[0][2]
    assert "the embedding" in heat.hovertext[1][0]


def test_hover_explains_every_term_in_one_sentence(make_report, make_plan_for):
    report = make_report(history=True)
    shown = {
        "Layer Sensitivity": sensitivity_figure(report),
        "vulnerable layer": sensitivity_figure(report),
        "lens probability": lens_figure(report),
        "Task Particle": lens_figure(report),
        "trained": plan_figure(report.plan, ["x"] * 6, [1] * 6),
        "frozen": plan_figure(report.plan, ["x"] * 6, [1] * 6),
    }
    for term, figure in shown.items():
        hovers = [text for trace in figure.data if trace.hovertext is not None for text in list_of(trace.hovertext)]
        assert any(GLOSSARY[term] in flat(hover) for hover in hovers), term
    assert all(sentence.endswith(".") and ". " not in sentence for sentence in GLOSSARY.values())


def list_of(texts) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def test_no_figure_holds_markup_of_the_report(full_of, draw_everything, markup):
    report = full_of(markup)
    for text in draw_everything(report):
        if not text.startswith("{") or '"data"' not in text[:20]:
            continue
        for string in strings(json.loads(text)):
            allowed = (
                string.replace("<b>", "")
                .replace("</b>", "")
                .replace("<i>", "")
                .replace("</i>", "")
                .replace("<br>", "")
            )
            assert "<" not in allowed, string


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from strings(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from strings(entry)
