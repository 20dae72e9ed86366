"""What the picture of a report shows, read back from its axes and its pixels."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.image import imread
from support.made_reports import with_further

from hf_layertracer.records import ReportData
from hf_layertracer.report.figure import draw_report


HOSTILE = ["$\\frac{", "$x^2$ and $y$", "事实知识", "_hidden", "\\undefined{", "a\nb\x00c", "W" * 500, "😀‮x", " "]


def png(figure: Figure) -> np.ndarray:
    """The picture as saved, with every warning an error; pixels of shape `(height, width, 4)`."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(file, format="png")
    file.seek(0)
    return imread(file)


def panels(report: ReportData) -> tuple[Axes, Axes]:
    above, below = draw_report(report).axes
    return above, below


def bars(axes: Axes) -> BarContainer:
    return next(container for container in axes.containers if isinstance(container, BarContainer))


def error_bars(axes: Axes) -> list[tuple[float, float, float]]:
    """Position, lower and upper end of each error bar."""
    (lines,) = bars(axes).errorbar.lines[2]
    return [(float(low[0]), float(low[1]), float(high[1])) for low, high in lines.get_segments()]


def labels(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [text.get_text() for text in legend.get_texts()] if legend else []


def line(axes: Axes, label: str):
    return next(line for line in axes.lines if line.get_label() == label)


def spans(axes: Axes, label: str) -> list[tuple[float, float]]:
    """Left and right ends of the shaded spans with a label."""
    patches = [patch for patch in axes.patches if patch.get_label() == label]
    return [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in patches]


def title(axes: Axes) -> str:
    return axes.get_title(loc="left")


def texts(figure: Figure) -> list:
    return figure.findobj(matplotlib.text.Text)


@pytest.mark.parametrize("num_layers", [1, 6, 100, 128])
def test_any_depth_makes_a_picture_of_1600_by_1000_pixels(make_report, num_layers: int):
    pixels = png(draw_report(make_report(num_layers=num_layers)))
    assert pixels.shape == (1000, 1600, 4)
    assert pixels[..., :3].std() > 0.1, "the picture is blank"


@pytest.mark.parametrize("num_layers", [1, 6, 100])
def test_every_layer_has_a_bar_and_an_error_bar_of_one_standard_error(make_report, num_layers: int):
    report = make_report(num_layers=num_layers)
    above, _ = panels(report)
    assert [bar.get_height() for bar in bars(above)] == pytest.approx(report.sensitivity.mean)
    centres = [bar.get_x() + bar.get_width() / 2 for bar in bars(above)]
    assert centres == pytest.approx(range(num_layers), abs=1e-9)
    for layer, (x, low, high) in enumerate(error_bars(above)):
        assert x == layer
        assert high - low == pytest.approx(2 * report.sensitivity.stderr[layer])
    assert len(error_bars(above)) == num_layers
    assert "±1 standard error" in title(above)


def test_the_vulnerable_layer_and_its_rivals_are_marked_above_their_bars(make_report):
    report = make_report(sensitivity__contenders=[0, 2])
    above, _ = panels(report)
    vulnerable, rivals = line(above, "vulnerable layer: 0"), line(above, "within 2 errors of it")
    assert list(vulnerable.get_xdata()) == [0]
    assert vulnerable.get_ydata()[0] > report.sensitivity.mean[0] + report.sensitivity.stderr[0]
    assert list(rivals.get_xdata()) == [2]
    assert rivals.get_markerfacecolor() != vulnerable.get_markerfacecolor()
    assert above.get_ylim()[1] > vulnerable.get_ydata()[0]


def test_one_draw_claims_no_standard_error(make_report):
    above, _ = panels(make_report(sensitivity__draws=1, sensitivity__stderr=[0.0] * 6))
    assert "standard error not known" in title(above)
    assert "±" not in title(above)
    assert [bars.errorbar for bars in above.containers] == [None]


def test_a_model_that_nothing_moves_still_has_an_axis(make_report):
    above, _ = panels(make_report(sensitivity__mean=[0.0] * 6, sensitivity__stderr=[0.0] * 6))
    assert above.get_ylim()[1] > 0


def test_layers_of_several_kinds_differ_in_colour_and_have_a_legend(make_report):
    kinds = ["linear_attention", "full_attention"] * 3
    above, _ = panels(make_report(model__layers=[{"kind": kind, "parameters": {}} for kind in kinds]))
    colours = [to_hex(bar.get_facecolor()) for bar in bars(above)]
    assert colours == colours[:2] * 3
    assert len(set(colours)) == 2
    assert labels(above)[:2] == kinds[:2]
    assert "Layer Sensitivity" not in labels(above)


def test_layers_of_one_kind_need_no_legend_for_it(make_report):
    assert "full_attention" not in labels(panels(make_report())[0])


def test_more_kinds_than_colours_share_grey_and_no_other_colour(make_report):
    above, _ = panels(make_report(10, model__layers=[{"kind": f"k{n}", "parameters": {}} for n in range(10)]))
    colours = [to_hex(bar.get_facecolor()) for bar in bars(above)]
    assert len(set(colours[:7])) == 7
    assert set(colours[6:]) == {"#777777"}


def test_the_lens_curve_begins_with_the_embedding_left_of_layer_0(make_report):
    report = make_report()
    _, below = panels(report)
    curve = line(below, "mean of all")
    assert list(curve.get_xdata()) == list(range(-1, 6))
    assert list(curve.get_ydata()) == report.lens.mean_probability
    emb = [text for text in below.get_xticklabels(minor=True) if text.get_text().strip() == "emb"]
    assert [text.get_position()[0] for text in emb] == [-1]
    assert [text.get_text() for text in below.get_xticklabels()] == ["0", "1", "2", "3", "4", "5"]


def test_the_band_is_one_standard_error_wide(make_report):
    report = make_report()
    _, below = panels(report)
    band = next(artist for artist in below.collections if isinstance(artist, PolyCollection))
    top = max(vertex[1] for vertex in band.get_paths()[0].vertices)
    assert top == pytest.approx(report.lens.mean_probability[-1] + report.lens.stderr[-1])
    assert "±1 standard error" in labels(below)


def test_one_probe_claims_no_standard_error_of_lens_and_context(make_report):
    report = with_further(make_report(lens__stderr=[0.0] * 7))
    report.first.context.delta_stderr = [0.0] * 6
    _, below, context = draw_report(report).axes
    assert not any(isinstance(artist, PolyCollection) for artist in below.collections)
    assert "±1 standard error" not in labels(below)
    assert "mean of all" in labels(below)
    assert bars(context).errorbar is None


def test_each_task_has_a_thin_line_of_its_own_look(make_report):
    report = make_report()
    _, below = panels(report)
    for task in ("facts", "sums"):
        assert list(line(below, task).get_ydata()) == report.lens.by_task[task]
        assert line(below, task).get_linewidth() < line(below, "mean of all").get_linewidth()
    curve = report.lens.mean_probability
    _, below = panels(make_report(lens__by_task={f"t{n}": curve for n in range(10)}))
    looks = [
        (task.get_color(), task.get_linestyle(), task.get_marker())
        for task in (line(below, f"t{n}") for n in range(10))
    ]
    assert len({look[:2] for look in looks}) == 10
    # Lines that stand side by side in the legend differ in all three.
    for one, next_one in pairwise(looks):
        assert all(ours != theirs for ours, theirs in zip(one, next_one, strict=True))


def test_many_tasks_share_one_look_and_one_label(make_report):
    curve = make_report().lens.mean_probability
    _, below = panels(make_report(lens__by_task={f"t{n}": curve for n in range(67)}))
    assert labels(below).count("each of 67 tasks") == 1
    assert sum(line.get_label() == "each of 67 tasks" for line in below.lines) == 67


def test_a_single_task_is_not_drawn_over_the_mean(make_report):
    _, below = panels(make_report(lens__by_task={"facts": make_report().lens.mean_probability}))
    assert "facts" not in labels(below)


def test_the_task_particle_is_a_line_within_its_shaded_interval(make_report):
    _, below = panels(make_report(num_layers=11))
    assert list(line(below, "Task Particle: layer 7").get_xdata()) == [7, 7]
    assert spans(below, "its 95 % interval: 6.5 to 7.5") == [(6.5, 7.5)]
    assert "(1 of 4 probes unresolved)" in title(below)


def test_without_a_resolved_probe_no_task_particle_is_drawn(make_report):
    nothing = {"layer": None, "quartiles": None, "interval": None, "mean_curve_layer": None, "unresolved": 4}
    _, below = panels(make_report(task_particle={**nothing, "per_probe": [None] * 4, "by_task": {}}))
    assert "no Task Particle" in labels(below)
    assert not any("interval" in label for label in labels(below))
    assert "(4 of 4 probes unresolved)" in title(below)


def test_an_invalid_lens_leaves_its_reason_in_place_of_the_curves(make_report):
    report = make_report(lens={"valid": False, "reason": "the head is scaled by $x$"})
    above, below = panels(report)
    assert not below.lines
    assert [text.get_text() for text in below.texts] == [
        "The lens is not valid for this model:\nthe head is scaled by $x$"
    ]
    assert "unresolved" not in title(below)
    assert len(bars(above)) == 6
    png(above.figure)


def test_both_panels_shade_what_is_trained_and_what_is_frozen(make_report, make_plan_for):
    plan = make_plan_for(6, trained_layers=[0, 1, 4], frozen_layers=[2, 3, 5])
    for axes in panels(make_report(plan=plan)):
        assert spans(axes, "trained") == [(-0.5, 1.5), (3.5, 4.5)]
        assert spans(axes, "frozen") == [(1.5, 3.5), (4.5, 5.5)]
    assert labels(panels(make_report(plan=plan))[0])[-2:] == ["trained", "frozen"]


def test_a_plan_with_patterns_trains_layers_in_part(make_report, make_plan_for):
    above, _ = panels(make_report(plan=make_plan_for(6, patterns=["mlp"])))
    assert "trained, in part" in labels(above)


def test_full_training_has_no_frozen_shade(make_report, make_plan_for):
    plan = make_plan_for(6, trained_layers=list(range(6)), frozen_layers=[])
    above, _ = panels(make_report(plan=plan))
    assert spans(above, "trained") == [(-0.5, 5.5)]
    assert "frozen" not in labels(above)


def test_without_a_plan_nothing_is_shaded(make_report):
    report = make_report(plan=None)
    for axes in panels(report):
        assert not spans(axes, "trained")
        assert not spans(axes, "frozen")
    assert "no plan" in draw_report(report).get_suptitle()


def test_the_latest_diagnosis_lies_dashed_over_both_panels(make_report, make_later):
    later = [make_later(6, step=50), make_later(6, step=200)]
    above, below = panels(make_report(later=later))
    assert list(line(above, "after step 200").get_ydata()) == later[1]["sensitivities"]["mask"]["mean"]
    assert list(line(below, "after step 200").get_ydata()) == later[1]["lens"]["mean_probability"]
    assert list(line(below, "its Task Particle: layer 1").get_xdata()) == [1, 1]
    for axes in (above, below):
        assert line(axes, "after step 200").get_linestyle() == "--"
        assert "after step 50" not in labels(axes)
    assert above.get_ylim()[1] > max(later[1]["sensitivities"]["mask"]["mean"])
    png(above.figure)


def test_every_further_perturbation_is_a_line_over_the_bars_of_the_first(make_report):
    report = with_further(make_report(num_layers=6))
    above = draw_report(report).axes[0]
    assert bars(above).get_label() == "mask"
    assert line(above, "skip").get_ydata().tolist() == [0.9] + [0.1] * 5
    assert {"mask", "skip"} <= set(labels(above))
    assert above.get_ylim()[1] > 0.9


def test_the_lens_panel_shows_the_control_and_the_second_rule(make_report):
    report = with_further(make_report(num_layers=6))
    below = draw_report(report).axes[1]
    control = line(below, "targets of other probes")
    assert control.get_xdata().tolist() == list(range(-1, 6))
    assert control.get_ydata().tolist() == pytest.approx(report.lens.control.mean_probability)
    assert set(line(below, "max-ratio rule: layer 4").get_xdata()) == {4.0}
    assert {"targets of other probes", "max-ratio rule: layer 4"} <= set(labels(below))


def test_the_context_sensitivity_has_a_panel_of_its_own(make_report):
    figure = draw_report(with_further(make_report(num_layers=6)))
    assert png(figure).shape == (1000, 1600, 4)
    *_, lowest = figure.axes
    assert len(figure.axes) == 3
    assert title(lowest).startswith("Context sensitivity")
    assert [bar.get_height() for bar in bars(lowest)] == [0.4] + [0.0] * 5
    assert next((low, high) for _, low, high in error_bars(lowest)) == pytest.approx((0.35, 0.45))


def test_the_title_names_model_layers_probes_and_plan(make_report):
    assert draw_report(make_report()).get_suptitle().split("\n") == [
        "someone/tiny-llama",
        "6 layers  ·  4 probes  ·  plan: freeze-deep",
    ]
    lone = make_report(num_layers=1, probes=1, model__id=None)
    assert draw_report(lone).get_suptitle().startswith("LlamaForCausalLM\n1 layer  ·  1 probe  ·")


@pytest.mark.parametrize("text", HOSTILE)
def test_names_from_elsewhere_are_drawn_as_plain_text_without_a_warning(make_report, make_plan_for, text: str):
    curve = make_report().lens.mean_probability
    layers = [{"kind": kind, "parameters": {}} for kind in [text, "other"] * 3]
    report = make_report(
        model__id=text,
        model__layers=layers,
        lens__by_task={text: curve, "other": curve},
        plan=make_plan_for(6, strategy=text),
    )
    figure = draw_report(report)
    png(figure)
    drawn = [artist for artist in texts(figure) if "$" in artist.get_text() or "\\" in artist.get_text()]
    assert not any(artist.get_parse_math() or artist.get_usetex() for artist in drawn)
    assert max(len(artist.get_text()) for artist in texts(figure)) < 150
    assert len(labels(figure.axes[0])) == len(figure.axes[0].get_legend().legend_handles) >= 5
    assert all(label.strip() for axes in figure.axes for label in labels(axes))


def test_a_dollar_in_a_name_stays_one(make_report):
    assert "a$b$c" in draw_report(make_report(model__id="a$b$c")).get_suptitle()


@pytest.mark.parametrize("num_layers", [6, 20, 21, 34, 35, 68, 100, 128])
def test_layer_numbers_do_not_run_into_each_other(make_report, num_layers: int):
    figure = draw_report(make_report(num_layers=num_layers))
    png(figure)
    below = figure.axes[1]
    ticks = [*below.get_xticklabels(), *below.get_xticklabels(minor=True)]
    boxes = [tick.get_window_extent() for tick in ticks]
    assert len(boxes) >= 2
    overlaps = [(a, b) for a in boxes for b in boxes if a is not b and a.overlaps(b)]
    assert not overlaps


def test_nothing_is_drawn_outside_the_picture_even_with_every_legend_entry(make_report, make_later):
    curve = make_report(num_layers=60).lens.mean_probability
    layers = [{"kind": f"kind_of_layer_number_{n % 6}", "parameters": {}} for n in range(60)]
    figure = draw_report(
        make_report(
            num_layers=60,
            model__layers=layers,
            lens__by_task={f"a_task_with_a_long_name_{n}": curve for n in range(10)},
            later=[make_later(60)],
            sensitivity__contenders=[0, 1],
        )
    )
    png(figure)
    for axes in figure.axes:
        box = axes.get_legend().get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= 1600
        assert box.y0 >= 0
        assert box.y1 <= 1000
        assert axes.get_window_extent().height > 250


def test_labels_are_large_enough_to_read(make_report):
    figure = draw_report(make_report())
    assert min(text.get_fontsize() for text in texts(figure) if text.get_text()) >= 14


def test_pyplot_is_neither_imported_nor_needed():
    code = (
        "import sys, matplotlib\nimport hf_layertracer.report.figure\nassert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
