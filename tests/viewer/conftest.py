"""Reports, kind and hostile, without a model behind them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import made_reports

from hf_layertracer.report import REPORT_FILE, LayerTracerReport


@pytest.fixture(scope="session")
def make_report() -> Callable[..., LayerTracerReport]:
    """`make_report(num_layers=6, probes=4, history=False, **changes)`."""
    return made_reports.whole_report


@pytest.fixture
def write_report(tmp_path: Path) -> Callable[..., Path]:
    """`write_report(report, "name")`: the report's file, in a folder of that name."""

    def write(report: LayerTracerReport, name: str = "one") -> Path:
        report.save_json(tmp_path / name)
        return tmp_path / name / REPORT_FILE

    return write


@pytest.fixture(params=made_reports.MARKUP, ids=range(len(made_reports.MARKUP)))
def markup(request: pytest.FixtureRequest) -> str:
    """Text that runs where it is not shown as text."""
    return request.param


@pytest.fixture(scope="session")
def full_of() -> Callable[[str], LayerTracerReport]:
    """`full_of(text)`: a valid report that has the text in every field that may hold text, and as every key."""
    return made_reports.full_of


@pytest.fixture(scope="session")
def draw_everything() -> Callable[[LayerTracerReport], list[str]]:
    """`draw_everything(report)`: the text of every view of a report that the viewer can show, as it goes to the page."""
    return _draw_everything


def _draw_everything(report: LayerTracerReport) -> list[str]:
    from hf_layertracer.errors import LayerTracerError
    from hf_layertracer.viewer import allocation, compare, describe, html_parts, plan_figures, probe_figures, tables
    from hf_layertracer.viewer.layer_figure import layer_figure

    probes = list(range(report.probes.count))[:25]
    tasks = list(report.probes.tasks)[:5]
    drawn = [layer_figure(report, tasks), probe_figures.probes_figure(report, probes)]
    texts = [
        html_parts.report_title(report),
        html_parts.description(describe.layers(report)),
        html_parts.report_facts(report),
        tables.layer_csv(report),
        report.model_dump_json(),
    ]
    texts += [
        html_parts.table(*tables.layer_table(report), "layers"),
        html_parts.table(*tables.probe_table(report, probes), "x"),
    ]
    if report.first.lens.per_probe:
        texts += [html_parts.table(*tables.reading_table(report, probe), "probe") for probe in probes[:1]]
        drawn += [probe_figures.probe_figure(report, probe) for probe in probes[:1]]
    if report.plan is not None:
        drawn.append(plan_figures.plan_figure(report.model, report.plan))
    if report.is_repeated:
        drawn.append(plan_figures.history_figure(report))
        texts.append(html_parts.table(*compare.difference_table(compare.before_and_after("run", report)), "x"))
    both = {report.model.id or "one": report, "other": compare.after_training(report)}
    drawn += [compare.sensitivity_curves(both), compare.lens_curves(both)]
    texts.append(html_parts.description(describe.curves(both)))
    texts += [html_parts.note(caution) for caution in compare.cautions(both)]
    texts += [html_parts.table(*make(both), "x") for make in (compare.difference_table, compare.depth_table)]
    for strategy in ("freeze-deep", "sensitivity", "task-particle", "budget"):
        try:
            plan = allocation.try_allocation(report, strategy, millions=1)
        except LayerTracerError as error:
            texts.append(html_parts.error(error))
            continue
        texts.append(html_parts.facts_list("savings", html_parts.savings_facts(plan.savings), plan.reason))
    return texts + [figure.to_json() for figure in drawn]


@pytest.fixture(scope="session")
def make_plan_for() -> Callable:
    """`make_plan_for(num_layers, **changes)`: a plan that freezes the deep half."""
    return made_reports.make_plan
