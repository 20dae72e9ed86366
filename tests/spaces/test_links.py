"""A link opens a view, and the address follows what is shown, in a real browser."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from hf_layertracer.hub import push_report


def address(page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.driver.current_url).query)


def test_a_link_opens_one_probe_of_one_report(unopened, examples):
    unopened.open("/?report=smollm2-135m-full&tab=probes&probe=3&list=2")
    unopened.wait(lambda: "probe 3" in unopened.text("#lt-readings"))
    unopened.wait(lambda: "page 2 of" in unopened.text("#lt-shown"))
    assert len(unopened.all("#lt-readings tbody tr")) == examples["smollm2-135m-full"].num_layers + 1
    unopened.tab("See")
    unopened.wait(lambda: examples["smollm2-135m-full"].model.id in unopened.text("#lt-report"))


def test_a_link_opens_reports_of_the_hub_beside_each_other(unopened, hub, make_report):
    push_report(make_report(9, model__id="alice/nine"), "alice/nine")
    push_report(make_report(7, model__id="alice/seven"), "alice/reports", repo_type="dataset")
    first = hub.repo("alice/nine").commits()[0].oid
    unopened.open(
        f"/?report=https://huggingface.co/alice/nine/tree/{first}&tab=compare&compare=alice/nine@{first}&compare=alice/reports"
    )
    unopened.wait(lambda: "alice/reports" in unopened.text("#lt-differences"))
    assert "layers 9 7 (-2)" in unopened.text("#lt-differences")
    unopened.tab("See")
    unopened.wait(lambda: unopened.bars() == 9)
    assert address(unopened)["report"] == [f"alice/nine@{first}"]


def test_a_link_to_nothing_says_so_and_shows_what_there_is(unopened):
    unopened.open("/?report=alice/gone&tab=nonsense&probe=x")
    unopened.wait(lambda: "There is no public repository alice/gone" in unopened.text("#lt-message"))
    assert unopened.bars() > 0


def test_a_link_that_is_hostile_is_text(unopened, sink):
    host, asked = sink
    unopened.open(
        f"/?report=<img src=//{host}/x>&order=<img src=//{host}/x>&state=<img src=//{host}/x>&compare=<b>&tab=probes"
    )
    unopened.wait(lambda: "neither a report here nor the id" in unopened.text("#lt-message"))
    unopened.tab("Compare")
    unopened.wait(lambda: unopened.text("#lt-cautions"))
    assert asked == []


def test_the_address_follows_what_is_shown(page, examples, make_report, tmp_path):
    page.choose("#lt-name", "smollm2-135m-freeze-deep")
    page.wait(lambda: address(page).get("report") == ["smollm2-135m-freeze-deep"])
    page.tab("Try an allocation")
    page.wait(lambda: address(page).get("tab") == ["allocate"])
    page.choose("#lt-strategy", "freeze-shallow")
    page.wait(lambda: address(page).get("strategy") == ["freeze-shallow"])
    page.open(urlsplit(page.driver.current_url).path + "?" + urlsplit(page.driver.current_url).query)
    page.wait(lambda: "freeze-shallow" in page.text("#lt-snippet .cm-content"))
    make_report(7, model__id="me/mine").save_json(tmp_path)
    page.upload(tmp_path / "layertracer_report.json")
    page.wait(lambda: "Opened me/mine" in page.text("#lt-message"))
    page.wait(lambda: "report" not in address(page), "nobody else could open it")
