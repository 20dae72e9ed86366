"""The page without a browser: what it is built of, what an event sends, and what it lets nobody do."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import gradio as gr
import httpx
import pytest

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.viewer.app import build_app, serve
from hf_layertracer.viewer.live import SWITCH
from hf_layertracer.viewer.report_store import ReportStore
from hf_layertracer.viewer.tabs import probes, see


@pytest.fixture
def app(make_report, write_report) -> gr.Blocks:
    return build_app([write_report(make_report(history=True), "one"), write_report(make_report(8), "two")])


def test_nothing_of_the_viewer_is_imported_with_the_library():
    code = (
        "import sys, hf_layertracer, hf_layertracer.cli; from hf_layertracer import diagnose, make_plan, LayerTracerReport;"
        "print([n for n in ('gradio', 'plotly', 'hf_layertracer.viewer') if n in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


def test_what_is_drawn_needs_no_gradio():
    modules = "allocation, compare, describe, escaping, html_parts, hub_places, hub_sources, layer_figure, links, live"
    modules += ", plan_figures, probe_figures, report_sources, report_store, space, tables"
    code = f"import sys; from hf_layertracer.viewer import {modules}; print('gradio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_first_report_comes_with_the_page(app):
    config = json.dumps(app.get_config_file(), default=str)
    assert "someone/tiny-llama" in config
    assert "Layer Sensitivity, " in config


def test_a_page_without_reports_can_be_built():
    assert "Choose a report" in json.dumps(build_app([]).get_config_file(), default=str)


def test_a_broken_report_leaves_a_page_with_its_error(tmp_path, make_report, write_report):
    (tmp_path / "bad.json").write_text('{"schema_version": 1, "model": "<script>"}')
    config = json.dumps(build_app([tmp_path / "bad.json"]).get_config_file(), default=str)
    assert "is not a valid LayerTracer report" in config
    assert "<script>" not in config


def test_diagnosing_is_there_only_where_the_owner_turned_it_on(app, monkeypatch, make_report, write_report):
    def tabs(page: gr.Blocks) -> list[str]:
        return [block.label for block in page.blocks.values() if isinstance(block, gr.Tab)]

    assert tabs(app) == ["See", "Probes", "Compare", "Try an allocation", "Hybrid", "Trials"]
    monkeypatch.setenv(SWITCH, "1")
    page = build_app([write_report(make_report(), "x")])
    assert tabs(page)[-1] == "Diagnose"
    (run,) = [fn for fn in page.fns.values() if fn.concurrency_id == "diagnose"]
    assert run.concurrency_limit == 1
    assert any(run._id in fn.cancels for fn in page.fns.values())
    assert page._queue.max_size == 1000


def test_no_event_is_offered_to_programs(app):
    assert {fn.api_visibility for fn in app.fns.values()} == {"private"}
    assert app.get_api_info()["named_endpoints"] == {}


def test_what_a_visitor_does_while_something_is_drawn_is_not_lost(app):
    drawing = [fn for fn in app.fns.values() if fn.show_progress == "hidden"]
    assert len(drawing) > 10
    assert {fn.trigger_mode for fn in drawing} == {"always_last"}


def test_a_hundred_visitors_at_once_are_all_served(app):
    (tasks,) = [block for block in app.blocks.values() if block.elem_id == "lt-tasks"]
    event = next(fn._id for fn in app.fns.values() if (tasks._id, "input") in fn.targets)
    _, url, _ = serve(app, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)

    async def visit(client: httpx.AsyncClient, number: int) -> bool:
        asked = {"fn_index": event, "session_hash": f"visitor{number}", "data": ["one", None, ["facts"]]}
        joined = await client.post("gradio_api/queue/join", json=asked)
        assert joined.status_code == 200, joined.text
        async with client.stream("GET", f"gradio_api/queue/data?session_hash=visitor{number}") as answer:
            async for line in answer.aiter_lines():
                if "process_completed" in line:
                    return json.loads(line.removeprefix("data: "))["success"]
        return False

    async def visit_all() -> list[bool]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
            return await asyncio.gather(*(visit(client, number) for number in range(100)))

    try:
        assert asyncio.run(visit_all()) == [True] * 100
    finally:
        app.close(verbose=False)


def test_a_page_of_a_thousand_probes_sends_a_fraction_of_them(make_report, write_report):
    report = make_report(100, probes=1000)
    store = ReportStore({"big": write_report(report, "big")})
    whole = len(report.model_dump_json())

    def sent(contents: list) -> int:
        return len(json.dumps(contents, default=lambda value: value.model_dump()))

    summary = sent(see._summary(store, "big", {}, {}))
    page = sent(probes._probes(store, "big", {}, None, "", "as asked", 1))
    one = sent(probes._probe(store, "big", {}, 999))
    assert whole > 1_500_000
    assert summary < 200_000
    assert page < 600_000
    assert one < 100_000


@pytest.mark.parametrize("kind", ["JSON", "CSV", "PNG"])
def test_the_name_of_a_download_cannot_leave_its_folder(make_report, kind):
    content, name = see._file(make_report(model__id="../../../etc/cron.d/x;rm -rf ~\n.sh"), kind)
    assert content
    assert "/" not in name
    assert name.startswith("layertracer-")
    assert name.endswith(f".{kind.lower()}")
    assert ".." not in name


def test_a_download_of_json_opens_again(make_report):
    from hf_layertracer.viewer.report_sources import parse_report

    assert parse_report(see._file(make_report(history=True), "JSON")[0]) == make_report(history=True)
    assert see._file(make_report(), "PNG")[0].startswith(b"\x89PNG")


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    from hf_layertracer.cli import app as cli

    monkeypatch.setitem(sys.modules, "hf_layertracer.viewer.app", None)
    monkeypatch.setattr("sys.argv", ["layertracer", "view"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert 'pip install "hf_layertracer[viewer]"' in capsys.readouterr().err


def test_view_of_nothing_is_one_line(tmp_path, monkeypatch, capsys):
    from hf_layertracer.cli import app as cli

    monkeypatch.setattr("sys.argv", ["layertracer", "view", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_view_starts_with_the_first_report_that_can_be_read_and_names_the_others(
    monkeypatch, capsys, tmp_path, make_report, write_report
):
    from hf_layertracer.cli import app as cli
    from hf_layertracer.viewer import app as viewer
    from hf_layertracer.viewer import report_store

    for name in ("b", "d"):
        write_report(make_report(model__id=f"me/{name}"), name)
    for name in ("a", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "layertracer_report.json").write_text("{")
    pages, said, read, read_report = [], [], [], report_store.read_report

    def read_and_count(path, name):
        read.append(path.parent.name)
        return read_report(path, name)

    def serve(page, **_):
        pages.append(json.dumps(page.get_config_file(), default=str))
        for _ in range(600):  # the others are read while the page is there
            said.append(capsys.readouterr().err)
            if "Cannot be shown: c/layertracer_report.json is not" in "".join(said):
                return
            time.sleep(0.1)

    monkeypatch.setattr(report_store, "read_report", read_and_count)
    monkeypatch.setattr(viewer, "serve", serve)
    monkeypatch.setattr("sys.argv", ["layertracer", "view", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "me/b" in pages[0]
    assert said[0].startswith("Left out: a/layertracer_report.json is not")
    assert "Cannot be shown: c/" in "".join(said)
    assert (read.count("a"), read.count("b"), read.count("d")) == (1, 1, 1)


def test_view_push_creates_a_space_with_the_reports_that_are_named(
    hub, monkeypatch, capsys, make_report, write_report
):
    from hf_layertracer.cli import app as cli

    path = write_report(make_report(), "mine")
    monkeypatch.setattr("sys.argv", ["layertracer", "view", str(path.parent), "--push", "alice/viewer"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "/spaces/alice/viewer" in capsys.readouterr().out
    assert "examples/mine/layertracer_report.json" in hub.repo("alice/viewer", "space").files


@pytest.mark.parametrize("arguments", [["--host", "0.0.0.0"], ["--push", "alice/viewer"]])
def test_a_login_is_used_only_where_nobody_else_reaches_the_page(hub, monkeypatch, capsys, arguments):
    from hf_layertracer.cli import app as cli

    monkeypatch.setattr("sys.argv", ["layertracer", "view", "--token-from-login", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "--host 127.0.0.1" in capsys.readouterr().err
    assert not hub.repos


def test_a_page_reads_private_reports_only_where_its_owner_says_so(hub, make_report, monkeypatch):
    from hf_layertracer.hub import push_report

    push_report(make_report(5, model__id="alice/secret"), "alice/secret", private=True)
    assert "There is no public repository" in json.dumps(build_app(["alice/secret"]).get_config_file(), default=str)
    config = json.dumps(build_app(["alice/secret"], token_from_login=True).get_config_file(), default=str)
    assert "5 layers" in config
    assert hub.token not in config
    monkeypatch.setenv("SPACE_ID", "alice/space")
    with pytest.raises(LayerTracerError, match="A Space never uses"):
        build_app(["alice/secret"], token_from_login=True)


def test_only_files_are_pushed(hub, monkeypatch, capsys):
    from hf_layertracer.cli import app as cli

    monkeypatch.setattr("sys.argv", ["layertracer", "view", "someone/elsewhere", "--push", "alice/viewer"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "someone/elsewhere is not one" in capsys.readouterr().err
    assert not hub.repos
