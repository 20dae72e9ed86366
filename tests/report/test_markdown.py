"""What a model card says of a report, and what it can never be made to say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from support.made_reports import with_further

from hf_layertracer.report.card_section import END, START
from hf_layertracer.report.markdown import report_section
from hf_layertracer.text import compact_ranges, one_line


HOSTILE = [
    "<script>alert(1)</script>",
    "x](javascript:alert(1))",
    "![x](http://evil.example/x.png)",
    "a | b | c",
    "two\n\n# lines",
    "two\r## lines\u2028## more",
    "`code` ``` fence",
    "\\`escaped\\`",
    "```",
    "---",
    "- item",
    "1. item",
    "1) item",
    "+ item",
    "> quote",
    "<https://evil.example>",
    "&lt;b&gt; &#60;i&#62;",
    "$$x$$ **bold** _it_ ~~no~~",
    f"{END}\nfree text",
    f"{START}",
    "    indented",
    "\u202ereversed",
]
TRAINING = {
    "steps": 1500,
    "seconds": 812.4,
    "tokens": 1_638_400,
    "tokens_per_second": 2016.7,
    "peak_memory_bytes": 3 * 2**30,
    "peak_memory_of": "cuda",
    "trainable_parameters": 60_000_000,
    "train_loss": 2.31,
    "eval_loss_before": 2.9,
    "eval_loss_after": 2.4,
}


def parsed(markdown: str) -> list[Token]:
    """All tokens, inline ones included, as a renderer that allows HTML and tables sees them."""
    blocks = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown)
    return [token for block in blocks for token in [block, *(block.children or [])]]


def skeleton(markdown: str) -> list[str]:
    """The structure of a text without its words; a code span and plain text count the same."""
    inline = {"text", "text_special", "code_inline"}
    return [token.type for token in parsed(markdown) if token.type not in inline]


def cells(section: str, first: str) -> list[str]:
    """The cells of the table row that begins with `first`."""
    row = next(line for line in section.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def hostile_report(make_report, make_plan_for, make_later, text: str):
    plan = make_plan_for(6, strategy=text, options={text: text}, patterns=[text], reason=text)
    plain = make_report()
    return make_report(
        model__id=text,
        model__revision=text,
        model__architecture=text,
        created=text,
        versions={text: text},
        probes__sha256=text,
        probes__tasks={text: 4, "other": 0},
        task_particle__by_task={
            text: plain.task_particle.by_task["facts"],
            "other": plain.task_particle.by_task["sums"],
        },
        sensitivity__path=text,
        sensitivity__path_reason=text,
        plan=plan,
        later=[make_later(6)],
        training=TRAINING | {"peak_memory_of": text},
        notes=[text, text],
    )


def test_the_section_opens_with_its_heading_and_shows_the_picture(make_report):
    section = report_section(make_report())
    assert section.startswith("## LayerTracer report\n\n")
    assert section.endswith("\n")
    images = [token for token in parsed(section) if token.type == "image"]
    assert [image.attrs["src"] for image in images] == ["layertracer_report.png"]


def test_it_says_what_was_measured_and_how(make_report):
    section = report_section(make_report(settings__rise=0.1))
    assert "6 layers of `someone/tiny-llama` (`LlamaForCausalLM`, revision `0123abc`)" in section
    assert "measured on 4 probes" in section
    assert "`mask`, `mask_ratio` `0.3`, `diagnosis_seed` `7`, 256 draws (64 per probe)" in section
    assert "noise_scale" not in section, "the strength of another perturbation would mislead"
    assert "`rise` `0.1`, `min_probability` `0.01`" in section
    assert "**Method:** path `replay`" in section
    assert "`torch 2.13.0`" in section


def test_a_model_without_an_id_goes_by_its_architecture(make_report):
    section = report_section(make_report(model__id=None))
    assert "6 layers of `LlamaForCausalLM` does" in section
    assert "None" not in section


def test_means_that_are_corrected_are_said_to_be(make_report):
    section = report_section(make_report(sensitivity__massive_dimensions=4))
    assert "means corrected for how often the masks hit each layer's 4 most massive dimensions" in section
    assert "corrected" not in report_section(make_report())


def test_whole_forward_passes_are_explained(make_report):
    section = report_section(make_report(sensitivity__path="full-forward", sensitivity__path_reason="replay_failed"))
    assert "path `full-forward` (replay\\_failed)" in section


def test_the_task_particle_comes_with_quartiles_interval_and_the_unresolved(make_report):
    section = report_section(make_report(num_layers=11))
    assert "Median **layer 7**, quartiles 6 to 8, 95 % interval of the median 6.5 to 7.5." in section
    assert "1 of 4 probes is unresolved." in section
    assert cells(section, "`facts`") == ["`facts`", "2", "50.0 %", "7", "6.5 to 7.5", "1"]


def test_without_a_resolved_probe_no_layer_is_named(make_report):
    nothing = {"layer": None, "quartiles": None, "interval": None, "mean_curve_layer": None, "unresolved": 4}
    section = report_section(
        make_report(task_particle={**nothing, "per_probe": [None] * 4, "by_task": {"facts": nothing}})
    )
    assert "No probe has one. 4 of 4 probes are unresolved." in section
    assert "Median" not in section


def test_the_controls_of_the_lens_and_the_second_rule_are_told(make_report):
    section = report_section(with_further(make_report(num_layers=6)))
    assert "(3 for each): 25.0 % of their curves have a Task Particle, against 75.0 % of the probes' own" in section
    assert (
        "The target rises no more than the control at layer 1, and in 1 of 4 probes at the Task Particle." in section
    )
    assert "**Control without the final norm:** it would be layer 4, with 2 of 4 probes unresolved." in section
    assert "changes most in proportion): Median **layer 4**." in section
    assert "The context comes in most at **layer 0**" in section
    assert "**Control" not in report_section(make_report())


def test_every_perturbation_is_named_with_what_it_found(make_report):
    section = report_section(with_further(make_report(num_layers=6)))
    assert "**Perturbation:** `mask`, `mask_ratio` `0.3`" in section
    assert "**Perturbation:** `skip`, `diagnosis_seed` `7`" in section
    assert "**Under `skip`:** layer 0 moves the output most, with 0.900 ± 0.020 bits" in section


def test_an_invalid_lens_gives_its_reason_and_no_task_particle(make_report):
    section = report_section(make_report(lens={"valid": False, "reason": "the head is scaled"}))
    assert "The lens is not valid for this model, so there is no Task Particle: the head is scaled." in section
    assert "Median" not in section


def test_a_long_list_of_tasks_is_cut_and_counted(make_report):
    summary = make_report().task_particle.by_task["facts"].model_dump()
    section = report_section(make_report(task_particle__by_task={f"task{n}": summary for n in range(67)}))
    assert "| `task19` |" in section
    assert "task20" not in section
    assert "47 more tasks are in `layertracer_report.json`." in section


def test_the_sensitivity_is_concluded_with_errors(make_report):
    values = [0.6, 0.5, 0.4, 0.3, 0.3, 0.27]
    section = report_section(make_report(sensitivity__mean=values, sensitivity__contenders=[0, 1, 2, 4]))
    assert "**Vulnerable layer:** 0, with 0.600 ± 0.020 bits" in section
    assert "**Not to be told from it** (within two standard errors): 1-2, 4" in section
    assert "**Shallow half minus deep half:** 0.210 ± 0.015 bits" in section
    assert "halves of the probes): 0.93" in section


def test_small_numbers_keep_the_digits_that_their_errors_leave_a_meaning(make_report):
    values = [0.0023, *[0.0001] * 5]
    section = report_section(make_report(sensitivity__mean=values, sensitivity__stderr=[0.0004] * 6))
    assert "with 0.0023 ± 0.0004 bits" in section


def test_accuracy_over_the_choices_stands_beside_that_over_the_vocabulary(make_report, make_later):
    assert "choices" not in report_section(make_report())
    chosen = {"scores__choice_accuracy": 0.75, "scores__choice_chance": 0.25}
    section = report_section(make_report(**chosen))
    assert "Of the choices alone, the target is the likeliest in 75.0 % (chance: 25.0 %)." in section
    later = make_later(6, step=200, scores__choice_accuracy=0.5)
    section = report_section(make_report(**chosen, later=[later]))
    assert cells(section, "Accuracy over the choices")[1:] == ["75.0 %", "50.0 %"]


def test_one_draw_has_no_standard_error(make_report):
    section = report_section(
        make_report(sensitivity__draws=1, sensitivity__stderr=[0] * 6, sensitivity__rank_stability=None)
    )
    assert "0.600 (standard error not known) bits" in section
    assert "**Not to be told from it** (within two standard errors): not known" in section
    assert "0.000" not in section
    assert "halves of the probes): not known" in section


def test_the_context_of_one_probe_has_no_standard_error(make_report):
    report = with_further(make_report())
    assert "grows by 0.400 ± 0.050 bits" in report_section(report)
    report.first.context.delta_stderr = [0.0] * 6
    assert "grows by 0.400 (standard error not known) bits" in report_section(report)


def test_the_plan_names_every_part_and_its_reason(make_report, make_plan_for):
    section = report_section(make_report(num_layers=30, plan=make_plan_for(30, patterns=[r"mlp\..*", "a|b"])))
    assert "**Strategy:** `freeze-deep`, `freeze_ratio` `0.5`" in section
    assert "**Trained layers:** 0-14" in section
    assert "**Frozen layers:** 15-29" in section
    assert "embeddings trained where names match, final norm frozen, head frozen" in section
    assert "that match:** `mlp\\..*`, a&#124;b" in section
    assert "**Reason:** Deep layers execute the tasks and are stable." in section


def test_a_part_that_an_option_asks_for_trains_whatever_the_patterns_say(make_report, make_plan_for):
    plan = make_plan_for(6, patterns=["mlp"], options={"train_embeddings": True}, train_norm=True)
    section = report_section(make_report(plan=plan))
    assert "embeddings trained, final norm trained where names match, head frozen" in section
    assert "embeddings trained, final norm frozen, head frozen" in report_section(make_report())


def test_a_plan_that_trains_everything_freezes_none(make_report, make_plan_for):
    plan = make_plan_for(6, trained_layers=list(range(6)), frozen_layers=[])
    assert "**Frozen layers:** none" in report_section(make_report(plan=plan))


def test_tied_embeddings_and_head_are_said_to_be(make_report):
    section = report_section(make_report(model__tied=True))
    assert "embeddings (tied to the head) trained" in section


def test_savings_are_told_in_units_for_people(make_report):
    section = report_section(make_report())
    assert cells(section, "Trainable parameters")[1:] == ["60 M", "120 M", "50.0 %"]
    assert cells(section, "Optimizer state (Adam, float32)")[1:] == ["480 MiB", "960 MiB", "50.0 %"]
    assert cells(section, "Gradients")[1:] == ["240 MiB", "480 MiB", "50.0 %"]
    assert cells(section, "Matrix products per token")[1:] == ["0.5 GFLOPs", "2 GFLOPs", "75.0 %"]
    assert "125 M parameters in all" in section


def test_of_layers_that_route_to_experts_all_are_said_to_be_counted(make_report):
    layers = [{"kind": "full_attention+moe", "parameters": {"w": 1000}}] * 6
    section = report_section(make_report(model__layers=layers))
    assert cells(section, "Matrix products per token, all experts")[1:] == ["0.5 GFLOPs", "2 GFLOPs", "75.0 %"]


def test_of_a_model_with_an_encoder_the_decoder_alone_is_said_to_be_counted(make_report):
    section = report_section(make_report(model__other={"model.encoder.weight": 1000}))
    assert cells(section, "Matrix products per token, text decoder alone")[1:] == ["0.5 GFLOPs", "2 GFLOPs", "75.0 %"]


def test_nothing_to_save_is_no_division_by_zero(make_report, make_plan_for):
    savings = dict.fromkeys(make_plan_for(6).savings.model_dump(), 0)
    section = report_section(make_report(plan=make_plan_for(6, savings=savings)))
    assert cells(section, "Gradients")[1:] == ["0 MiB", "0 MiB", "-"]


def test_what_the_report_lacks_the_section_leaves_out(make_report):
    section = report_section(make_report(plan=None))
    headings = [line for line in section.splitlines() if line.startswith("### ")]
    assert [heading.split(":")[0] for heading in headings] == [
        "### Task Particle",
        "### Layer Sensitivity",
        "### Reproduce",
        "### Citation",
    ]


def test_the_training_outcome_is_a_table_of_what_was_measured(make_report):
    section = report_section(make_report(training={**TRAINING, "train_loss": None}))
    assert cells(section, "Optimizer steps")[1] == "1,500"
    assert cells(section, "Tokens per second")[1] == "2,017"
    assert cells(section, "Peak memory (`cuda`)")[1] == "3,072 MiB"
    assert cells(section, "Evaluation loss before")[1] == "2.9"
    assert cells(section, "Evaluation loss after")[1] == "2.4"
    assert "Mean training loss" not in section


def test_before_is_set_against_the_latest_diagnosis(make_report, make_later):
    later = [make_later(6, step=50, scores__accuracy=0.1), make_later(6, step=200)]
    section = report_section(make_report(later=later))
    assert cells(section, "Same probes, same settings")[1:] == ["Before", "After step 200"]
    assert cells(section, "Accuracy on the probes")[1:] == ["50.0 %", "75.0 %"]
    assert cells(section, "Task Particle")[1:] == ["3.5", "1"]
    assert cells(section, "Vulnerable layer")[1:] == ["0", "5"]
    assert cells(section, "Its Layer Sensitivity in bits")[1:] == ["0.600 ± 0.020", "0.400 ± 0.010"]


def test_notes_are_a_list(make_report):
    section = report_section(make_report(notes=["First.", "Second."]))
    assert "### Notes\n\n- First.\n- Second.\n\n### Reproduce\n" in section


@pytest.mark.parametrize("text", HOSTILE)
def test_no_string_of_a_report_changes_the_structure_of_the_card(make_report, make_plan_for, make_later, text: str):
    harmless = report_section(hostile_report(make_report, make_plan_for, make_later, "plain"))
    hostile = report_section(hostile_report(make_report, make_plan_for, make_later, text))
    assert skeleton(hostile) == skeleton(harmless)
    assert not {"html_block", "html_inline", "hr", "blockquote_open"} & set(skeleton(hostile))
    assert skeleton(hostile).count("fence") == 2, "the recipe and the citation"
    links = {token.attrs["href"] for token in parsed(hostile) if token.type == "link_open"}
    assert links == {"https://arxiv.org/abs/2605.11416", "https://arxiv.org/abs/2604.20556"}
    assert START not in hostile
    assert END not in hostile


@given(text=st.text(st.sampled_from("ab1 .-+=#>|`<*_[]()!\\&;$~\n\t\"'@:/"), min_size=1))
def test_no_text_at_all_changes_it(make_report, make_plan_for, make_later, text: str):
    text = f"x{text}"
    harmless = report_section(hostile_report(make_report, make_plan_for, make_later, "x"))
    hostile = report_section(hostile_report(make_report, make_plan_for, make_later, text))
    assert skeleton(hostile) == skeleton(harmless)


@given(text=st.text(st.characters(codec="ascii"), max_size=100).filter(lambda text: one_line(text, 100)))
def test_escaped_text_still_reads_as_it_was(make_report, text: str):
    lines = [token for token in parsed(report_section(make_report(notes=[text]))) if token.type == "inline"]
    note = lines[[line.content for line in lines].index("Notes") + 1]
    assert "".join(child.content for child in note.children) == one_line(text, 1000)


def test_an_empty_name_is_said_to_be_empty(make_report):
    assert "6 layers of (empty) does" in report_section(make_report(model__id=None, model__architecture=" \n"))


def test_bare_addresses_do_not_become_links(make_report):
    section = report_section(make_report(notes=["see https://evil.example and WWW.evil.example or me@evil.example"]))
    assert "https\\://" in section
    assert "WWW\\.evil" in section
    assert "me\\@evil" in section


def test_one_line_drops_what_cannot_be_printed_and_cuts_the_rest():
    assert one_line(" a\x00b\n\u202ec ", 20) == "a b c"
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("abcd", 4) == "abcd"


@given(st.lists(st.integers(0, 200)))
def test_ranges_can_be_read_back(indices: list[int]):
    text = compact_ranges(indices)
    back = []
    for part in text.split(", ") if text != "none" else []:
        first, _, last = part.partition("-")
        back += range(int(first), int(last or first) + 1)
    assert back == sorted(set(indices))


@pytest.mark.parametrize(
    ("indices", "text"),
    [([], "none"), ([3], "3"), ([0, 1], "0-1"), (list(range(15)), "0-14"), ([7, 0, 1, 2, 9, 10], "0-2, 7, 9-10")],
)
def test_ranges_are_as_short_as_they_can_be(indices: list[int], text: str):
    assert compact_ranges(indices) == text


@pytest.mark.parametrize("changes", [0, 1, 30])
def test_a_history_of_what_trained_is_a_table_whose_middle_may_be_left_out(make_report, changes):
    report = make_report(num_layers=4)
    for step in range(changes):
        trained = [step % 4, 3] if step % 4 != 3 else [3]
        update = {"trained_layers": trained, "frozen_layers": [layer for layer in range(4) if layer not in trained]}
        report.set_plan(report.plan.model_copy(update=update), 10 * (step + 1))
    section = report_section(report)
    assert ("### What trained when" in section) == (changes > 0)
    rows = [line for line in section.splitlines() if line.startswith("| ") and " M |" in line and "+" in line]
    if changes == 1:
        assert any(cell in section for cell in ("+ 3, - 1", "| 10 | 0, 3 |"))
    if changes == 30:
        assert "11 more" in section
        assert "| 300 |" in section
        assert len(rows) <= 20
