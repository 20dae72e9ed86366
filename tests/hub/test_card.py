"""What a card claims of a model, and that nothing else in it changes."""

from __future__ import annotations

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import made_reports
from support.hub_cards import card_errors

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.hub.card import evaluation_results, model_card
from hf_layertracer.hub.model_index import is_ours
from hf_layertracer.hub.privacy import public_report, without_paths
from hf_layertracer.report.card_section import START


OURS = ("layertracer-probes", "layertracer-evaluation")
LATER = made_reports.make_later(
    4,
    2,
    step=9,
    task_particle__layer=None,
    task_particle__interval=None,
    sensitivity__mean=[0.1, 0.2, 0.4, 0.1],
    scores__accuracy=0.5,
    scores__mean_log_probability=-1.0,
)


def results(report) -> dict[str, float]:
    return {result.metric_type: result.metric_value for result in evaluation_results(report)}


def test_a_diagnosed_model_is_told_by_its_diagnosis(make_report):
    report = make_report(task_particle__layer=2.0)
    assert results(report) == {
        "accuracy": report.first.scores.accuracy,
        "mean_log_probability": report.first.scores.mean_log_probability,
        "task_particle": 2.0,
        "vulnerable_layer": report.sensitivity.vulnerable_layer,
        "layer_sensitivity": max(report.sensitivity.mean),
    }


def test_a_trained_model_is_not_told_by_what_it_was_before(make_report):
    assert results(make_report(training=True)) == {"loss": 2.5}
    later = results(make_report(training=True, later=[LATER]))
    assert later == {
        "loss": 2.5,
        "accuracy": 0.5,
        "mean_log_probability": -1.0,
        "vulnerable_layer": 2,
        "layer_sensitivity": 0.4,
    }


def test_a_card_without_front_matter_gets_one(make_report):
    text = model_card("# Mine\n\nText.\n", make_report(), "alice/tiny")
    card = ModelCard(text)
    assert card.data.tags == ["layertracer"]
    assert card.data.model_name == "tiny"
    assert card.text.split(START)[0].strip() == "# Mine\n\nText."


def test_a_section_alone_becomes_a_card_with_a_title(make_report, tmp_path):
    make_report().save(tmp_path)
    text = model_card((tmp_path / "README.md").read_text(encoding="utf-8"), make_report(), "alice/tiny")
    assert "\n# tiny\n" in text
    assert text.count(START) == 1


def test_the_model_that_was_trained_is_the_base_of_a_new_card(make_report):
    assert (
        ModelCard(model_card(None, make_report("big/base", training=True), "alice/tiny")).data.base_model == "big/base"
    )
    for report in (make_report("folder", training=True), make_report(None, training=True), make_report("alice/tiny")):
        assert ModelCard(model_card(None, report, "alice/tiny")).data.base_model is None


@pytest.mark.parametrize(
    "text",
    [
        "---\nlicense: [mit\n---\n",
        "---\n- a\n---\n",
        "---\nmodel-index:\n- name: x\n  results:\n  - task: {}\n---\n",
        "---\nmodel-index: 3\n---\n",
        "---\ntags: {a: b}\nmodel-index:\n- x\n---\n",
    ],
)
def test_front_matter_that_cannot_be_read_is_one_line(make_report, text):
    with pytest.raises(LayerTracerError, match=r"front matter of README\.md") as caught:
        model_card(text, make_report(), "alice/tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("license: mit # as ever\n# last", "license: mit # as ever\n# last\ntags:\n- layertracer"),
        ("tags:\n  - a\n\n# next\nlicense: 'mit'", "tags:\n  - a\n  - layertracer\n\n# next\nlicense: 'mit'"),
        ("tags: [a]\nx: |\n  tags:\n  - b", "tags: [a, layertracer]\nx: |\n  tags:\n  - b"),
        ("x: 1\r\ntags: a", "x: 1\r\ntags:\r\n- a\r\n- layertracer"),
        ("tags: layertracer\nx:   1", "tags: layertracer\nx:   1"),
        ("{tags: [a], x: 1}", "{tags: [a, layertracer], x: 1}"),
        ("{x: 1, # one\n y: [2,],}", "{x: 1, # one\n y: [2,], tags: [layertracer],}"),
        ("{tags: a, x: 'b' }", "{tags: [a, layertracer], x: 'b' }"),
        ("{tags: []}", "{tags: [layertracer]}"),
        ("{}", "{tags: [layertracer]}"),
        ("tags: [a, # first\n  b]", "tags: [a, # first\n  b, layertracer]"),
        ("tags:\n- a # mine\n\n- b # and this\nx: 1", "tags:\n- a # mine\n\n- b # and this\n- layertracer\nx: 1"),
        (
            "x: |\n  text # no comment\n\n# a comment\ntags:\n- a",
            "x: |\n  text # no comment\n\n# a comment\ntags:\n- a\n- layertracer",
        ),
        ("tags:\n- a\nx: >-\n  folded\n  text", "tags:\n- a\n- layertracer\nx: >-\n  folded\n  text"),
        ("", "tags:\n- layertracer"),
    ],
)
def test_other_fields_keep_their_lines(make_report, block, expected):
    text = model_card(
        f"---\n{block}\n---\n# Mine\n", make_report(training=True, training__eval_loss_after=None), "a/b"
    )
    assert text.startswith((f"---\n{expected}\n---\n# Mine\n", f"---\n\n{expected}\n---\n# Mine\n"))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("abc :-#'", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
front_matters = st.dictionaries(
    st.sampled_from(["license", "language", "datasets", "widget", "extra_gated_prompt", "x"]), values, max_size=4
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=front_matters,
    tags=st.lists(st.sampled_from(["a", "b", "layertracer"]), unique=True, max_size=3),
    body=st.text(),
)
def test_whatever_stands_in_a_card_stays(make_report, data, tags, body):
    body = body.replace("layertracer:", "").replace("\r", "")
    before = {**{name: value for name, value in data.items() if value is not None}, **({"tags": tags} if tags else {})}
    text = f"---\n{yaml.safe_dump(before, sort_keys=False)}---\n{body}"
    once = model_card(text, make_report(), "alice/tiny")
    after = ModelCard(once).data.to_dict()
    index = after.pop("model-index")
    assert index[0]["name"] == "tiny"
    assert after.pop("tags") == (tags if "layertracer" in tags else [*tags, "layertracer"])
    before.pop("tags", None)
    assert after == before
    # `split` and not the parser: a body may begin with its own dashes.
    assert once.split(START)[0].rstrip().endswith(body.rstrip())
    assert model_card(once, make_report(), "alice/tiny") == once


def test_the_hub_accepts_the_results(make_report):
    for report in (make_report(), make_report(training=True), make_report(training=True, later=[LATER])):
        assert card_errors(model_card(None, report, "alice/tiny"), "model") == []


names = st.text("abcXYZ019_-. é", min_size=1, max_size=8).map(str.strip).filter(lambda name: name and name.strip("."))


@given(
    parts=st.lists(names.filter(lambda n: " " not in n), min_size=2, max_size=5),
    before=st.sampled_from(["", "in ", "'", "(", "x="]),
)
def test_of_a_path_only_the_last_part_is_left(parts, before):
    for path in ("/" + "/".join(parts), "~/" + "/".join(parts), "C:\\" + "\\".join(parts), "\\\\" + "\\".join(parts)):
        assert without_paths(f"{before}{path}") == f"{before}{parts[-1]}"


@pytest.mark.parametrize(
    "text",
    ["", "and/or", "1/2", "see https://a.org/b/c", "user/model", "model.layers.0", "a / b / c", "layers 0-7", "/ x"],
)
def test_what_is_no_path_stays(text):
    assert without_paths(text) == text


@pytest.mark.parametrize("pattern", [r"\.mlp\.", r"(\.0\.|\.1\.)mlp", r"layers\.\d+\.self_attn"])
def test_a_regular_expression_is_no_path_and_a_path_beside_it_is(make_report, pattern):
    report, where = make_report(), "(home/alice/models/tiny)".replace("(", "/").replace(")", "")
    plan = report.plan.model_dump() | {
        "strategy": "explicit",
        "options": {"train_layers": pattern, "file": where},
        "patterns": [pattern],
        "reason": f"Parameters whose names match {pattern} train, as {where}/{pattern} said and C:\\{pattern}\\x.",
    }
    report.set_plan(type(report.plan)(**plan))
    public = public_report(report).plan
    assert public.options == {"train_layers": pattern, "file": "tiny"}
    assert public.patterns == [pattern]
    assert public.reason.startswith(f"Parameters whose names match {pattern} train, as ")
    assert "alice" not in public.reason
    assert "C:" not in public.reason
    assert "\0" not in public.reason


def test_nothing_stays_nothing():
    assert without_paths(None) is None


@pytest.mark.parametrize("later", [[], [LATER]])
def test_text_and_results_name_the_same_vulnerable_layer(make_report, later):
    report = make_report(later=later)
    text = model_card(None, report, "alice/tiny")
    (line,) = [line for line in text.splitlines() if "**Vulnerable layer:**" in line]
    said = line.rsplit("; ", 1)[-1].removeprefix("- **Vulnerable layer:** ").split(",")[0]
    assert int(said) == results(report)["vulnerable_layer"]


@pytest.mark.parametrize(("training", "loaded"), [(False, "big/base"), (True, "alice/tiny")])
def test_a_new_card_says_what_it_is_of_and_how_to_load_it(make_report, training, loaded):
    card = ModelCard(model_card(None, make_report("big/base", training=training), "alice/tiny"))
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-generation")
    assert card.data.base_model == "big/base"
    assert f'AutoModelForCausalLM.from_pretrained("{loaded}")' in card.text


def entry(name: str, indent: str = "", type: str = "wikitext", metrics: str = "[]") -> str:
    return (
        f"{indent}- name: {name} # the name\n{indent}  x-mine: 1\n{indent}  results:\n"
        f"{indent}  - task: {{type: text-generation, mine: yes}}\n{indent}    dataset:\n"
        f"{indent}      type: {type}\n{indent}      name: W # a comment\n{indent}    metrics: {metrics}\n"
    )


CARDS = {
    "one entry": "model-index:\n" + entry("Mine"),
    "indented": "model-index:\n" + entry("Mine", "  ") + "license: mit # last",
    "two models": "model-index:\n" + entry("A") + "\n# between\n" + entry("B"),
    "ours by name": "model-index:\n" + entry("A") + entry("tiny"),
    "text blocks": "x: |\n  # text\n\nmodel-index:\n" + entry("Mine") + "# last\ny: >\n  a\n  b",
    "none": "license: mit\n# last",
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", CARDS)
def test_no_byte_of_others_changes(make_report, name, mark, newline):
    card = f"---\n{CARDS[name].rstrip()}\n---\n# Mine\n".replace("\n", newline)
    text = mark + card
    reports = make_report(), make_report(training=True, later=[LATER])
    once = model_card(text, reports[0], "alice/tiny")
    twice = model_card(once, reports[1], "alice/tiny")
    for made, report in ((once, reports[0]), (twice, reports[1])):
        rest = iter(made.splitlines(keepends=True))
        assert all(line in rest for line in text.splitlines(keepends=True)), "every line is there, in its order"
        assert made.count("\ufeff") == len(mark)
        data = yaml.safe_load(made.removeprefix("\ufeff").split("---")[1])
        (home,) = [e for e in data["model-index"] if any(is_ours(r, OURS) for r in e["results"])]
        found = {m["type"]: m["value"] for r in home["results"] if is_ours(r, OURS) for m in r["metrics"]}
        assert found == results(report)
        if name in ("two models", "ours by name", "none"):
            assert home["name"] == "tiny"
        assert model_card(made, report, "alice/tiny") == made


@pytest.mark.parametrize("top", ["model-index: {}\nx: 1 # one", "{{x: 1, model-index: {}}}"])
def test_results_in_braces_are_edited_in_place(make_report, top):
    theirs = "{task: {type: t}, dataset: {type: w, name: W}, metrics: []}"
    index = f"[{{name: A, x-mine: 1, results: [ {theirs} ]}}]"
    made = model_card(f"---\n{top.format(index)}\n---\n", make_report(), "alice/tiny")
    for report in (make_report(), make_report(training=True)):
        made = model_card(made, report, "alice/tiny")
        block = made.split("---")[1]
        assert block.startswith(
            f"\n{top.format(0).split('model-index')[0]}model-index: [{{name: A, x-mine: 1, results: [ {theirs}, "
        )
        (entry,) = yaml.safe_load(block)["model-index"]
        assert {m["type"]: m["value"] for r in entry["results"][1:] for m in r["metrics"]} == results(report)


def test_a_new_card_names_the_licence_of_the_base_model(make_report):
    def license_of(model_id: str) -> dict[str, str]:
        assert model_id == "big/base"
        return {"license": "other", "license_name": "gemma", "license_link": "https://example.org/terms"}

    data = ModelCard(model_card(None, make_report("big/base", training=True), "alice/tiny", license_of)).data
    assert (data.license, data.license_name, data.license_link) == tuple(license_of("big/base").values())
