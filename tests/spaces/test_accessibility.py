"""What axe-core finds on each tab, in light and dark, and that tabs are moved between with the keyboard."""

from __future__ import annotations

from importlib.resources import files

import pytest
from selenium.webdriver.common.keys import Keys


AXE = (files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
RUN = (
    "const [rules, done] = arguments; axe.run(document, {resultTypes: ['violations'], runOnly: rules})"
    ".then(found => done(found.violations), error => done([{id: String(error), impact: 'critical', nodes: []}]))"
)
DRAWN = {
    "See": "#lt-charts .main-svg",
    "Probes": "#lt-readings tbody tr",
    "Compare": "#lt-depths tbody tr",
    "Try an allocation": "#lt-memory .main-svg",
    "Hybrid": "#lt-hybrid-message p",
    "Trials": "#lt-trials-upload",
    "Diagnose": "#lt-start",
}


# Only colours differ in the dark.
@pytest.mark.parametrize(("theme", "rules"), [("light", None), ("dark", ["color-contrast"])], ids=["light", "dark"])
def test_axe_finds_nothing_serious(unopened, theme, rules):
    unopened.driver.set_script_timeout(120)
    unopened.open(f"/?__theme={theme}")
    for tab, drawn in DRAWN.items():
        unopened.tab(tab)
        unopened.find(drawn)
        unopened.script(AXE)
        found = unopened.driver.execute_async_script(RUN, rules)
        serious = [
            (tab, entry["id"], node["html"][:200])
            for entry in found
            if entry["impact"] in ("serious", "critical")
            for node in entry["nodes"]
        ]
        assert serious == []


def test_arrow_keys_move_between_tabs(shown):
    def at(name: str) -> bool:
        focused = shown.driver.switch_to.active_element
        return focused.text == name and focused.get_attribute("aria-selected") == "true"

    shown.script("document.querySelector('button[data-tab-id=see]').focus()")
    for key, name in (
        (Keys.ARROW_RIGHT, "Probes"),
        (Keys.ARROW_LEFT, "See"),
        (Keys.END, "Diagnose"),
        (Keys.HOME, "See"),
    ):
        shown.driver.switch_to.active_element.send_keys(key)
        shown.wait(lambda name=name: at(name), name)
    outline = shown.script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_every_chart_has_a_name_and_the_charts_a_description(shown, examples):
    report = next(iter(examples.values()))
    assert "Layer Sensitivity and lens probability by layer" in shown.find("#lt-charts").get_attribute("textContent")
    described = shown.find("#lt-charts-described").get_attribute("textContent")
    assert f"highest at layer {report.first.sensitivity.vulnerable_layer}" in described
