"""Messages that Gradio itself shows hold nothing of a report, whatever became of what was chosen."""

from __future__ import annotations

import itertools
import socket
import sys
from pathlib import Path


def test_names_of_reports_that_are_gone_are_never_html(start, stop, page_at, make_report, full_of, sink, tmp_path):
    address, asked = sink
    hostile = f"<img src=//{address}/x>"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    make_report(5, model__id="me/first").save_json(tmp_path / "first")
    command = [str(Path(sys.executable).with_name("layertracer")), "view", str(tmp_path / "first"), "--no-browser"]
    command += ["--port", port]
    url = start(command)
    page = page_at(url)
    make_report(5, model__id="me/other").save_json(tmp_path / "other")
    page.upload(tmp_path / "other/layertracer_report.json")
    page.wait(lambda: "Opened me/other" in page.text("#lt-message"))
    full_of(hostile).save_json(tmp_path / "hostile")
    page.upload(tmp_path / "hostile/layertracer_report.json")
    page.wait(lambda: hostile in page.text("#lt-report h2"))
    page.choose("#lt-tasks", hostile)
    page.tab("Compare")
    page.wait(lambda: f"{hostile} (uploaded)" in page.text("#lt-differences"))
    page.choose("#lt-compared", "first")  # what the visitor chose stays when they look at another report
    page.wait(lambda: "first" in page.text("#lt-differences"))
    for number in range(6):  # the last one takes the place of the hostile one
        make_report(5, model__id=f"me/{number}").save_json(tmp_path / str(number))
        page.upload(tmp_path / str(number) / "layertracer_report.json")
        page.wait(lambda number=number: f"Opened me/{number}" in page.text("#lt-message"))
    page.wait(lambda: "two reports or more" in page.text("#lt-cautions"))
    page.choose("#lt-compared", "me/3 (uploaded)")
    page.wait(lambda: "me/3" in page.text("#lt-differences"))
    page.upload(tmp_path / "hostile/layertracer_report.json")
    page.wait(lambda: hostile in page.text("#lt-message"))
    page.choose("#lt-compared", f"{hostile} (uploaded)")
    page.wait(lambda: hostile in page.text("#lt-differences"))

    stop(url)
    assert start(command) == url
    # Gradio notices that the server is gone and opens the page anew, as its address says. Until then, a click asks for
    # reports that nobody has any more.
    number = itertools.count(1)

    def answered() -> bool:
        choices = page.all("#lt-state input")
        if choices:
            choices[next(number) % 2].click()
        return any(said in page.text("#lt-cautions") for said in ("no longer open", "two reports or more"))

    page.wait(answered)
    assert not [toast for toast in page.all("[data-testid=toast-body]") if "img" in toast.text]
    assert asked == []
