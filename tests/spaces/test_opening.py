"""What a visitor opens, in a real browser: uploads, the Hub, models to diagnose; and what stays closed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys


# -- open ----------------------------------------------------------------------------------------------------------------


def test_an_uploaded_report_opens_and_can_be_compared(page, make_report, tmp_path):
    make_report(7, model__id="me/mine").save_json(tmp_path)
    page.upload(tmp_path / "layertracer_report.json")
    page.wait(lambda: "Opened me/mine" in page.text("#lt-message"))
    page.wait(lambda: page.bars() == 7)
    page.tab("Compare")
    page.wait(lambda: "me/mine" in page.text("#lt-differences"))
    page.open()
    page.find("#lt-name input").click()
    offered = page.wait(lambda: [option.get_attribute("aria-label") for option in page.all("[role=option]")])
    assert "me/mine (uploaded)" not in offered, "another visit sees what was uploaded in this one"


HOSTILE = {
    "page.json": (b"<html><script>window.hacked=1</script></html>", "not JSON"),
    "deep.json": (b'{"schema_version": 1, "config": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "not JSON"),
    "other.json": (b'{"model_type": "llama"}', "no schema_version"),
    "key.json": (
        b'{"schema_version": 1, "<img src=x onerror=window.hacked=1>": 1}',
        "is not a valid LayerTracer report",
    ),
    "nan.json": (b'{"schema_version": 2, "diagnoses": [NaN]}', "is not a valid LayerTracer report"),
    "newer.json": (b'{"schema_version": 99}', "pip install -U"),
    "picture.json": (b"\x89PNG\r\n\x1a\n" + b"\0" * 1000, "not JSON"),
    "text.json": (b'{"schema_version": 1, "x": "' + b"x" * 3_000_000 + b'"}', "characters"),
}


def test_hostile_files_are_refused_with_a_message(shown, tmp_path):
    before = shown.text("#lt-report")
    for name, (content, message) in HOSTILE.items():
        (tmp_path / name).write_bytes(content)
        shown.upload(tmp_path / name)
        shown.wait(lambda message=message: message in shown.text("#lt-message .lt-error"), name)
    assert shown.text("#lt-report") == before
    assert shown.script("return window.hacked") is None


def test_a_file_above_the_limit_is_never_taken_in(page, tmp_path):
    (tmp_path / "huge.json").write_bytes(b" " * (17 * 2**20))
    page.upload(tmp_path / "huge.json")
    page.wait(lambda: "maximum allowed size" in page.script("return document.body.innerText"))
    assert page.bars() > 0


def test_a_report_full_of_markup_shows_it_as_text_and_runs_nothing(page, full_of, tmp_path, markups):
    texts = []
    for number, markup in enumerate(markups):
        full_of(markup).save_json(tmp_path / str(number))
        page.upload(tmp_path / str(number) / "layertracer_report.json")
        page.wait(lambda markup=markup: markup[:40] in page.text("#lt-report h2"), markup)
        texts.append(page.text("#lt-report"))
    for tab in ("Probes", "Compare", "Try an allocation", "See"):
        page.tab(tab)
        page.wait(lambda: not page.all(".generating"))
    page.tab("Compare")
    page.wait(lambda: f"{markups[-1]} (uploaded), after" in page.text("#lt-differences thead"))
    page.choose("#lt-compared", f"{markups[-2]} (uploaded)")  # the first ones made room for later ones
    page.wait(lambda: f"{markups[-2]} (uploaded)" in page.text("#lt-differences thead"))
    assert page.script("return window.hacked") is None
    tree = page.script(
        "return [...document.querySelectorAll('script, img, a, iframe, object, embed, [onerror], [onload]')]"
        ".map(e => e.outerHTML).filter(t => t.includes('hacked') || t.includes('leak') || t.includes('calc'))"
    )
    assert tree == []
    assert page.requests_elsewhere() == []
    assert len(set(texts)) == len(markups)


def hybrid_record(text: str, **changes: object) -> bytes:
    """The record of a hybrid of three layers that has the text in every field that may hold text."""
    origin = {"donor": text, "revision": text, "sha256": text}
    layer = {"layer": 0, "donor_layer": 0, "kind": text, "mixer": text, "init": text, "verified": text}
    parts = dict.fromkeys(("architecture", "base", "base_revision", "dtype", "tokenizer", "class_verified"), text)
    whole = parts | {"recipe": {text: text}, "layers": [origin | layer | {"layer": n} for n in range(3)]}
    whole |= {"embeddings": origin, "licenses": {text: text}, "notes": [text], "versions": {text: text}}
    return json.dumps(whole | changes).encode()


def test_a_hostile_hybrid_shows_text_or_one_line_and_asks_nobody(page, sink, tmp_path):
    address, asked = sink
    markup = f"<img src=//{address}/x onerror=window.hacked=1><script>window.hacked=1</script>"
    deep = b'{"schema_version": 1, "recipe": ' + b'{"x": ' * 50_000 + b"1" + b"}" * 50_000 + b"}"
    huge = {"donor": markup, "sha256": "", "layer": 10**400, "donor_layer": -(10**400), "kind": "x", "verified": ""}
    page.tab("Hybrid")
    page.wait(lambda: "is not a hybrid" in page.text("#lt-hybrid-message"))
    for name, content, shown in (
        ("deep", deep, "not the record of a hybrid"),
        ("types", hybrid_record("x", layers=[{"layer": "0", "donor": ["x"]}]), "not the record of a hybrid"),
        ("keys", hybrid_record("x", **{markup: 1}), "not the record of a hybrid"),
        ("empty", hybrid_record("x", layers=[]), "has 0 layers"),
        ("huge", hybrid_record("x", layers=[huge] * 3), "x of 3 layers"),
        ("markup", hybrid_record(markup), f"{markup[:40]}"),
    ):
        (tmp_path / f"{name}.json").write_bytes(content)
        page.upload(tmp_path / f"{name}.json", "#lt-hybrid-upload")
        page.wait(lambda shown=shown: shown in page.text("#lt-hybrid-message"), name)
    page.wait(lambda: markup[:40] in page.text("#lt-hybrid-table"))
    page.wait(lambda: page.bars("#lt-hybrid-stack") == 6)
    assert page.script("return window.hacked") is None
    assert not page.all("#lt-hybrid-message img, #lt-hybrid-table img, #lt-hybrid-stack img")
    assert asked == []


# -- the Hub -------------------------------------------------------------------------------------------------------------


def test_reports_are_searched_and_opened_from_the_hub(page, hub, make_report):
    from hf_layertracer.hub import push_report

    push_report(make_report(9, model__id="alice/nine"), "alice/nine")
    page.click("#lt-open-hub button, #lt-open-hub .label-wrap")
    page.fill("#lt-hub", "nine", then=Keys.TAB)
    page.click("#lt-search")
    page.wait(lambda: "Found 1" in page.text("#lt-message"))
    page.choose("#lt-found", "alice/nine")
    page.wait(lambda: "Opened alice/nine" in page.text("#lt-message"))
    page.wait(lambda: page.bars() == 9)


def test_the_owner_s_token_shows_nothing_private(page, hub, make_report):
    from hf_layertracer.hub import push_report

    push_report(make_report(9), "alice/secret", private=True)
    page.click("#lt-open-hub button, #lt-open-hub .label-wrap")
    page.fill("#lt-hub", "alice/secret")
    page.wait(lambda: "There is no public repository alice/secret" in page.text("#lt-message"))
    page.fill("#lt-hub", "../../etc/passwd")
    page.wait(lambda: "neither a report here nor the id" in page.text("#lt-message"))
    assert hub.token not in page.tree()


# -- diagnose ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(hub, tiny_llama, tiny_tokenizer, tmp_path) -> str:
    from huggingface_hub import HfApi

    tiny_llama().save_pretrained(tmp_path / "tiny")
    tiny_tokenizer.save_pretrained(tmp_path / "tiny")
    HfApi().create_repo("alice/tiny")
    HfApi().upload_folder(repo_id="alice/tiny", folder_path=tmp_path / "tiny")
    return "alice/tiny"


@pytest.mark.slow
def test_a_small_model_is_diagnosed_for_the_visitor(page, tiny):
    page.tab("Diagnose")
    page.fill("#lt-model", tiny, then=Keys.TAB)
    page.click("#lt-start")
    page.wait(lambda: "Done: alice/tiny" in page.text("#lt-progress"))
    page.tab("See")
    page.wait(lambda: page.bars() == 4)
    assert "alice/tiny" in page.text("#lt-report")


def test_a_diagnosis_is_cancelled(page, tiny):
    page.tab("Diagnose")
    page.fill("#lt-model", tiny, then=Keys.TAB)
    page.click("#lt-start")
    page.wait(lambda: "Loading the model" in page.text("#lt-progress"))
    page.click("#lt-stop")
    page.wait(lambda: "Cancelled" in page.text("#lt-progress"))


# -- around the page -----------------------------------------------------------------------------------------------------


def test_no_file_of_the_machine_is_served(space, tmp_path):
    import httpx

    (tmp_path / "secret.json").write_text("s3cret")
    for path in (tmp_path / "secret.json", "/etc/passwd", Path(__file__), Path.home() / ".bashrc", "../app.py"):
        answer = httpx.get(f"{space.rstrip('/')}/gradio_api/file={path}")
        assert answer.status_code in (403, 404), path
        assert b"root:" not in answer.content


def test_no_program_can_name_a_file_of_the_machine_as_an_upload(space, tmp_path, make_report):
    import httpx

    make_report(5).save_json(tmp_path)
    config = httpx.get(f"{space.rstrip('/')}/config").json()
    upload = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "lt-upload")
    event = next(d for d in config["dependencies"] if [upload, "upload"] in [list(t) for t in d["targets"]])
    payload = {
        "data": [{"path": str(tmp_path / "layertracer_report.json"), "meta": {"_type": "gradio.FileData"}}, None],
        "fn_index": event["id"],
        "session_hash": "abc123",
    }
    httpx.post(f"{space.rstrip('/')}/gradio_api/queue/join", json=payload)
    with httpx.stream("GET", f"{space.rstrip('/')}/gradio_api/queue/data?session_hash=abc123", timeout=60) as events:
        said = "".join(line for line in events.iter_lines() if "process_completed" in line or "Opened" in line)
    assert '"success":false' in said.replace(" ", "")
    assert "Opened" not in said
