"""What the interactive pictures show, read back from their traces."""

from __future__ import annotations

import json

import pytest

from hf_layertracer.report.palette import ORANGE, PURPLE, SKY
from hf_layertracer.viewer.glossary import GLOSSARY
from hf_layertracer.viewer.layer_figure import layer_figure
from hf_layertracer.viewer.plan_figures import history_figure, plan_figure
from hf_layertracer.viewer.probe_figures import probe_figure, probes_figure


def text_of(figure) -> str:
    return figure.to_json()


def flat(html: str) -> str:
    return html.replace("<br>", " ").replace("<i>", "").replace("</i>", "")


def above(figure) -> list:
    """The traces of Layer Sensitivity."""
    return [trace for trace in figure.data if trace.yaxis == "y"]


def below(figure) -> list:
    """The traces of lens probability."""
    return [trace for trace in figure.data if trace.yaxis == "y2"]


def titles(figure) -> list[str]:
    return [flat(text.text) for text in figure.layout.annotations if text.yanchor == "bottom"]


@pytest.mark.parametrize("num_layers", [1, 6, 100])
def test_every_layer_has_a_bar_with_its_standard_error(make_report, num_layers):
    report = make_report(num_layers)
    (bars,) = above(layer_figure(report))
    assert list(bars.x) == list(range(num_layers))
    assert list(bars.y) == report.sensitivity.mean
    assert list(bars.error_y.array) == report.sensitivity.stderr
    assert len(bars.hovertext) == num_layers


def test_both_charts_have_one_layer_axis_and_are_read_together(make_report):
    layout = layer_figure(make_report()).layout
    assert layout.xaxis.matches == "x2"
    assert (layout.hovermode, layout.hoversubplots) == ("x unified", "axis")
    assert layout.xaxis2.ticktext[:2] == ("emb", "0")


def test_kinds_of_layers_differ_in_colour_and_are_named(make_report):
    kinds = ["linear_attention", "full_attention"] * 3
    report = make_report(model__layers=[{"kind": kind, "parameters": {}} for kind in kinds])
    bars = above(layer_figure(report))
    assert [(trace.name, list(trace.x)) for trace in bars] == [
        ("linear_attention", [0, 2, 4]),
        ("full_attention", [1, 3, 5]),
    ]
    assert bars[0].marker.color != bars[1].marker.color
    assert [trace.width for trace in bars] == [0.8, 0.8], "bars of a rare kind would hide their neighbours"


def test_the_vulnerable_layer_its_contenders_and_what_trains_are_marked(make_report):
    report = make_report(sensitivity__contenders=[0, 2])
    figure = layer_figure(report)
    signs = [(sign.x, sign.text) for sign in figure.layout.annotations if sign.text in "▼▽"]
    assert signs == [(0, "▼"), (2, "▽")]
    bands = [(band.x0, band.x1, band.yref) for band in figure.layout.shapes if band.fillcolor == ORANGE]
    assert bands == [(-0.5, 2.5, "y domain"), (-0.5, 2.5, "y2 domain")]
    assert "▽ contender; shaded: trained" in titles(figure)[0]
    bare = layer_figure(make_report(plan=None))
    assert not [band for band in bare.layout.shapes if band.fillcolor == ORANGE]
    assert "shaded" not in titles(bare)[0]


def test_a_single_draw_claims_no_error(make_report):
    figure = layer_figure(make_report(sensitivity__draws=1, sensitivity__stderr=[0.0] * 6))
    assert above(figure)[0].error_y.array is None
    assert "±" not in "".join(above(figure)[0].hovertext)
    assert "no standard error" in titles(figure)[0]


def test_a_single_probe_claims_no_error_of_the_lens(make_report):
    band, curve = below(layer_figure(make_report()))[:2]
    assert (band.name, "±" in curve.hovertext[3]) == ("±1 standard error", True)
    curve = below(layer_figure(make_report(lens__stderr=[0.0] * 7)))[0]
    assert curve.name == "mean of all probes"
    assert "±" not in "".join(curve.hovertext)


def test_chosen_tasks_and_other_perturbations_are_drawn_as_lines(make_report):
    report = make_report(sensitivity__by_task={"facts": [0.9] * 6, "sums": [0.1] * 6})
    skip = report.first.sensitivity.model_copy(update={"mean": [0.3] * 6})
    report.first.sensitivities["skip"] = skip
    figure = layer_figure(report, ["sums", "no such task"])
    assert {trace.name: list(trace.y) for trace in above(figure)[1:]} == {
        "perturbation skip": [0.3] * 6,
        "sums": [0.1] * 6,
    }
    assert layer_figure(report, ["facts"]).layout.yaxis.range[1] > 0.9
    curves = {trace.name: trace for trace in below(figure)}
    assert list(curves["sums"].y) == report.lens.by_task["sums"]
    assert curves["sums"].line.color == above(figure)[2].line.color, "a task has one colour in both charts"
    assert "facts" not in curves


def test_the_lens_begins_with_the_embedding_and_has_a_band(make_report):
    report = make_report()
    band, mean, particle = below(layer_figure(report))
    assert list(mean.x) == [-1, 0, 1, 2, 3, 4, 5]
    assert list(mean.y) == report.lens.mean_probability
    top = report.lens.mean_probability[-1] + report.lens.stderr[-1]
    assert max(band.y) == pytest.approx(top)
    assert len(band.x) == 2 * 7
    assert set(particle.x) == {report.task_particle.layer}
    (interval,) = [shape for shape in layer_figure(report).layout.shapes if shape.fillcolor == PURPLE]
    assert (interval.x0, interval.x1) == report.task_particle.interval


def test_one_probe_is_drawn_over_the_mean(make_report):
    report = make_report(probes=3, lens__per_probe=[[i / 10] * 7 for i in range(3)])
    mean, curve = probe_figure(report, 2).data
    assert list(mean.y) == report.lens.mean_probability
    assert (curve.name, list(curve.y)) == ("probe 2", [0.2] * 7)


def test_without_a_valid_lens_its_reason_stands_in_place_of_curves(make_report):
    report = make_report(lens={"valid": False, "reason": "the head is <odd>"})
    figure = layer_figure(report)
    assert above(figure)
    assert not below(figure)
    assert any("the head is &lt;odd&gt;" in flat(note.text) for note in figure.layout.annotations)
    assert "not read" in flat(probes_figure(report, [0]).layout.annotations[0].text)


def test_the_plan_is_a_stack_in_order(make_report, make_plan_for):
    plan = make_plan_for(4, trained_layers=[0, 2], frozen_layers=[1, 3], train_embeddings=True)
    layers = [{"kind": "full_attention", "parameters": {"w": size}} for size in (10, 20, 30, 4_000_000)]
    figure = plan_figure(make_report(4, model__layers=layers).model, plan)
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


def test_a_plan_of_patterns_trains_by_name_and_in_full_what_an_option_asks_for(make_report, make_plan_for):
    def drawn(**changes) -> dict:
        plan = make_plan_for(4, patterns=["mlp"], **changes)
        return {bars.name: list(bars.y) for bars in plan_figure(make_report(4).model, plan).data}

    by_name, frozen = ["layer 0", "layer 1"], ["layer 2", "layer 3", "final norm", "head"]
    assert drawn() == {"trained where names match": ["embedding", *by_name], "frozen": frozen}
    asked = drawn(options={"train_embeddings": True})
    assert asked == {"trained": ["embedding"], "trained where names match": by_name, "frozen": frozen}


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
        "Layer Sensitivity": layer_figure(report),
        "vulnerable layer": layer_figure(report),
        "lens probability": layer_figure(report),
        "Task Particle": layer_figure(report),
        "trained": plan_figure(report.model, report.plan),
        "frozen": plan_figure(report.model, report.plan),
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
