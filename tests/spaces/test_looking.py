"""What a visitor sees and tries, in a real browser, on any screen and by keyboard."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from hf_layertracer import LayerTracerReport, make_plan
from hf_layertracer.text import compact_ranges
from hf_layertracer.viewer.allocation import usual_budget
from hf_layertracer.viewer.html_parts import savings_facts
from hf_layertracer.viewer.layer_figure import layer_figure


TABS = ("See", "Probes", "Compare", "Try an allocation", "Diagnose")


# -- see -----------------------------------------------------------------------------------------------------------------


def test_the_page_is_alive_without_a_network(shown, examples):
    first = next(iter(examples.values()))
    assert first.model.id in shown.text("#lt-report")
    assert shown.bars() == first.num_layers
    assert shown.errors() == []
    assert shown.requests_elsewhere() == []


@pytest.mark.parametrize(("width", "height", "mobile"), [(1400, 1000, False), (390, 844, True)])
def test_charts_stand_in_the_first_screen(unopened, width, height, mobile):
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    unopened.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    unopened.open()
    code = "const r = document.querySelector('#lt-charts .main-svg').getBoundingClientRect(); return [r.top, r.bottom]"
    top, bottom = unopened.wait(lambda: unopened.script(code))
    assert top <= height / 2
    assert mobile or bottom <= height


def test_each_example_opens(shown, examples):
    for name, report in reversed(examples.items()):
        shown.choose("#lt-name", name)
        layers = report.num_layers
        shown.wait(
            lambda report=report, layers=layers: report.model.id in shown.text("#lt-report") and shown.bars() == layers
        )
        assert f"{layers} layers" in shown.text("#lt-report")
        shown.wait(lambda layers=layers: shown.bars("#lt-plan") == layers + 3)
        shown.wait(lambda report=report: bool(shown.all("#lt-history .hm")) == report.is_repeated)
    assert shown.errors() == []


def test_tasks_are_drawn_over_the_mean(page, examples):
    report = next(iter(examples.values()))
    task = next(iter(report.probes.tasks))

    def lines(tasks: list[str]) -> int:
        return sum(trace.type == "scatter" for trace in layer_figure(report, tasks).data)

    def drawn() -> int:
        return len(page.all("#lt-charts .scatterlayer .trace"))

    assert lines([task]) == lines([]) + 2, "in both charts"
    page.wait(lambda: report.model.id in page.text("#lt-report") and drawn() == lines([]))
    page.choose("#lt-tasks", task)
    page.wait(lambda: drawn() == lines([task]) and task in page.text("#lt-charts .legend"))


def test_probes_are_found_and_one_is_read_at_every_layer(shown, examples):
    report = next(iter(examples.values()))
    shown.tab("Probes")
    shown.wait(lambda: len(shown.all("#lt-probe-table tbody tr")) == 25)
    shown.fill("#lt-page", "2")
    shown.wait(lambda: "page 2 of" in shown.text("#lt-shown"))
    shown.wait(lambda: shown.all("#lt-probe-table tbody th")[0].text == "25")
    shown.click("#lt-probe-table tbody td", 1)
    shown.wait(lambda: "probe 25" in shown.text("#lt-readings"))
    assert len(shown.all("#lt-readings tbody tr")) == report.num_layers + 1
    shown.wait(lambda: "probe 25" in shown.text("#lt-curve .legend"))
    shown.click_chart("#lt-probes", 0.5, 0.5)
    shown.wait(lambda: "probe 37" in shown.text("#lt-readings"))
    shown.all("#lt-probe-table .lt-pick")[2].send_keys(Keys.ENTER)
    shown.wait(lambda: "probe 27" in shown.text("#lt-readings"))
    shown.fill("#lt-probe", "99999")
    shown.wait(lambda: "There is no probe 99999" in shown.text("#lt-readings"))


def test_hover_and_focus_explain_the_terms(shown):
    from selenium.webdriver import ActionChains

    shown.script("document.querySelector('#lt-charts').scrollIntoView({block: 'center'})")
    ActionChains(shown.driver).move_to_element(shown.all("#lt-charts .barlayer .point")[3]).perform()
    shown.wait(lambda: "Jensen-Shannon divergence" in shown.text("#lt-charts .hoverlayer"))
    term = shown.find("#lt-facts .lt-term")
    shown.script("arguments[0].focus()", term)
    tip = shown.script("return getComputedStyle(arguments[0], '::after').content", term)
    assert term.get_attribute("data-tip") in tip


@pytest.mark.parametrize("kind", ["json", "csv", "png"])
def test_a_report_is_downloaded(shown, examples, kind):
    report = next(iter(examples.values()))
    shown.click(f"#lt-get-{kind}")
    name, content = shown.downloaded()
    assert name == f"layertracer-{report.model.id.split('/')[1]}.{kind}"
    if kind == "json":
        assert LayerTracerReport.from_dict(json.loads(content)) == report
    elif kind == "csv":
        rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
        assert [float(row["sensitivity"]) for row in rows] == report.first.sensitivity.mean
    else:
        assert content.startswith(b"\x89PNG")


# -- compare and try -----------------------------------------------------------------------------------------------------


def test_two_models_are_compared_and_a_run_with_itself(page, examples):
    first, second = list(examples.values())[:2]
    page.tab("Compare")
    page.wait(lambda: len(page.all("#lt-compare-sensitivity .scatterlayer .trace")) == 2)
    page.wait(lambda: "Task Particle (relative depth)" in page.text("#lt-differences"))
    assert f"layers {first.num_layers} {second.num_layers}" in page.text("#lt-differences")
    assert "probes are not the same" in page.text("#lt-cautions")
    assert "beyond error" not in page.text("#lt-depths")
    assert len(page.all("#lt-depths tbody tr")) == 10
    page.choose("#lt-name", "smollm2-135m-full")
    page.wait(lambda: "smollm2-135m-full, after step" in page.text("#lt-differences"))
    assert page.text("#lt-cautions") == ""
    page.choose("#lt-compared", "gemma-3-270m")
    page.wait(lambda: "gemma-3-270m" in page.text("#lt-differences"))
    before = page.text("#lt-differences")
    page.click("#lt-state input", 1)
    page.wait(lambda: page.text("#lt-differences") != before)
    assert page.errors() == []


def test_an_allocation_is_tried(page, examples):
    report = LayerTracerReport.model_validate(next(iter(examples.values())))
    page.tab("Try an allocation")

    page.wait(lambda: shows(page, make_plan(report, "freeze-deep", freeze_ratio=0.5)))
    page.choose("#lt-strategy", "freeze-shallow")
    page.wait(lambda: shows(page, make_plan(report, "freeze-shallow", freeze_ratio=0.5)))
    page.find("#lt-option-freeze-ratio input[type=range]").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    page.wait(lambda: shows(page, make_plan(report, "freeze-shallow", freeze_ratio=0.6)))
    page.wait(lambda: "freeze_ratio=0.6" in page.text("#lt-snippet .cm-content"))
    trained = make_plan(report, "freeze-shallow", freeze_ratio=0.6).trained_layers
    assert shown_layers(page) == compact_ranges(trained)
    page.fill("#lt-layers-trained", "0-3, 7")
    page.wait(lambda: shows(page, make_plan(report, "explicit", train_layers="0-3,7")))
    page.wait(lambda: "train_layers='0-3,7'" in page.text("#lt-snippet .cm-content"))
    page.click_chart("#lt-tried-plan", 0.5, 0.5)  # in the middle of the stack
    page.wait(lambda: shown_layers(page) != "0-3, 7")
    assert {*range(4), 7} < set(explicit_layers(page))
    assert len(page.all("#lt-memory .scatterlayer .trace")) == 3
    for number, form in ((2, "layertracer plan google/gemma-3-270m --strategy explicit"), (3, "unfrozen_parameters")):
        page.click("#lt-form input", number)
        page.wait(lambda form=form: form in page.text("#lt-snippet .cm-content"))
    page.fill("#lt-layers-trained", "99")
    page.wait(lambda: "Layer 99 does not exist" in page.text("#lt-savings"))
    page.choose("#lt-strategy", "budget")
    page.wait(
        lambda: shows(page, make_plan(report, "budget", max_trainable_parameters=round(usual_budget(report) * 1e6)))
    )


def shows(page, plan) -> bool:
    return all(value in page.text("#lt-savings") for value in savings_facts(plan.savings).values())


def shown_layers(page) -> str:
    return page.find("#lt-layers-trained textarea, #lt-layers-trained input").get_attribute("value").replace(",", ", ")


def explicit_layers(page) -> list[int]:
    spans = [span.split("-") for span in shown_layers(page).split(", ")]
    return [layer for span in spans for layer in range(int(span[0]), int(span[-1]) + 1)]


def test_a_snippet_is_copied(shown):
    shown.driver.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": shown.url.rstrip("/")},
    )
    shown.tab("Try an allocation")
    shown.wait(lambda: "freeze_ratio=0.5" in shown.text("#lt-snippet .cm-content"))
    shown.click("#lt-snippet button[title*=opy], #lt-snippet button[aria-label*=opy]")
    text = shown.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0], arguments[0])")
    assert "LayerTracerConfig(strategy='freeze-deep', freeze_ratio=0.5)" in str(text)


# -- any screen, any input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(unopened, theme):
    size = {"width": 360, "height": 780, "deviceScaleFactor": 2, "mobile": True}
    unopened.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    unopened.open(f"/?__theme={theme}")
    for tab in TABS[:4]:
        unopened.tab(tab)
        unopened.wait(lambda: any(plot.is_displayed() for plot in unopened.all(".js-plotly-plot .main-svg")))
        unopened.wait(lambda: unopened.script("return document.documentElement.scrollWidth <= window.innerWidth"), tab)
        for plot in unopened.all(".js-plotly-plot"):
            unopened.wait(lambda plot=plot: plot.size["width"] <= 360)
    assert (brightness(unopened, "gradio-app", "backgroundColor") < 200) == (theme == "dark")
    for text in (".js-plotly-plot .xtick text", ".js-plotly-plot .gtitle"):
        assert (brightness(unopened, text, "fill") > 400) == (theme == "dark"), (
            "the charts' text has the page's colour"
        )


def brightness(page, selector: str, of: str) -> int:
    """Red, green and blue of a colour added up: 0 is black, 765 white."""
    colour = page.script(f"return getComputedStyle(document.querySelector('{selector}')).{of}")
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3])


def test_everything_is_reached_by_keyboard(page):
    where = (
        "const e = document.activeElement; const near = e.closest('[id^=lt-]');"
        "return e.getAttribute('role') == 'tab' ? e.textContent.trim() : near && near.id"
    )
    reached = set()
    for _ in range(40):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(page.script(where))
    wanted = {
        "name",
        "upload",
        "facts",
        "get-json",
        "get-csv",
        "get-png",
        "tasks",
    }
    assert {"See", *(f"lt-{name}" for name in wanted)} <= reached
    tab = page.find("button[data-tab-id=allocate]")
    page.script("arguments[0].focus()", tab)
    tab.send_keys(Keys.ENTER)
    page.wait(lambda: "freeze_ratio=0.5" in page.text("#lt-snippet .cm-content"))
    page.fill("#lt-layers-trained", "0-3")
    page.wait(lambda: "explicit" in page.text("#lt-snippet .cm-content"))


def test_a_hundred_layers_and_a_thousand_probes(start, page_at, make_report, tmp_path):
    report = make_report(100, probes=1000, history=True)
    report.save_json(tmp_path / "big")
    command = [str(Path(sys.executable).with_name("layertracer")), "view", str(tmp_path / "big"), "--no-browser"]
    page = page_at(start(command))
    assert page.bars() == 100
    page.tab("Probes")
    page.wait(lambda: "1000 of 1000 probes; page 1 of 40" in page.text("#lt-shown"))
    page.fill("#lt-page", "40")
    page.wait(lambda: page.all("#lt-probe-table tbody th")[0].text == "975")
    page.tab("Try an allocation")
    page.wait(lambda: shows(page, make_plan(report, "freeze-deep", freeze_ratio=0.5)))
    page.wait(lambda: page.bars("#lt-tried-plan") == 100 + 3)
    assert shown_layers(page) == "0-49"
    page.click_chart("#lt-tried-plan", 0.5, 0.2)  # of 103 bars, one in the upper fifth
    page.wait(lambda: len(explicit_layers(page)) == 51)
    clicked = explicit_layers(page)[-1]
    assert 75 < clicked < 90
    page.wait(lambda: shows(page, make_plan(report, "explicit", train_layers=f"0-49,{clicked}")))
    assert len(page.all("#lt-memory .scatterlayer .trace")) == 3
    assert len(page.all("#lt-tried-plan .ytick")) <= 30, "names that can be read"
    assert TABS[4] not in [button.text for button in page.all("button[role=tab]")]
    assert page.errors() == []
