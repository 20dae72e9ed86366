from __future__ import annotations

import copy
import json
import math
import random
import statistics
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.tolerance import measured, nearly
from torch import nn
from transformers.utils import logging

from hf_layertracer import progress
from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis import engine
from hf_layertracer.diagnosis.diagnose import diagnose
from hf_layertracer.errors import LayerTracerError, UntraceableModelError
from hf_layertracer.modeling import find_parts
from hf_layertracer.planning import LayerTracerConfig
from hf_layertracer.probes import Probe
from tests.architectures.tiny import tiny_config, tiny_model


QUICK = DiagnosisConfig(perturbation="mask", repeats=2, diagnosis_seed=3)


def more_of(probes: list[Probe], times: int) -> list[Probe]:
    """The probes, and others of the same lengths and tasks."""
    return [Probe((p.prompt[0] + shift, *p.prompt[1:]), p.target, p.task) for shift in range(times) for p in probes]


def comparable(report):
    """All that was measured, without what differs from run to run."""
    return report.model_dump(exclude={"created", "settings", "diagnoses"}) | {"diagnosis": measured(report.first)}


def assert_alike(first, second, tolerance=2e-6):
    assert first.sensitivity.mean == pytest.approx(second.sensitivity.mean, abs=tolerance)
    assert first.sensitivity.stderr == pytest.approx(second.sensitivity.stderr, abs=tolerance)
    assert first.lens.mean_probability == pytest.approx(second.lens.mean_probability, abs=tolerance)
    assert first.block_influence == pytest.approx(second.block_influence, abs=1e-5)
    # Whole numbers can be compared: no rise lies within 9 % of the threshold for `token_probes` on the tiny Llama.
    assert first.task_particle == second.task_particle
    assert first.probes.sha256 == second.probes.sha256


def force_slow_path(monkeypatch):
    monkeypatch.setattr(engine, "check_replay", lambda *_: "the test says so")


# -- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("perturbation", ["mask", "noise", "skip"])
def test_layer_sensitivity_agrees_with_the_slow_reference(
    tiny_llama, token_probes, reference, monkeypatch, perturbation, slow
):
    if slow:
        force_slow_path(monkeypatch)
    model, config = tiny_llama(), DiagnosisConfig(perturbation=perturbation, repeats=2, diagnosis_seed=3)
    report = diagnose(model, token_probes, config=config)
    prompts = [probe.prompt for probe in token_probes]
    repeats = 1 if perturbation == "skip" else 2
    values = reference.sensitivity(model, "model.layers", prompts, config, repeats)
    by_probe = [[statistics.fmean(probe) for probe in layer] for layer in values]
    means = [statistics.fmean(layer) for layer in by_probe]
    assert report.sensitivity.mean == pytest.approx(means, abs=2e-5)
    if repeats == 1:
        errors = [statistics.stdev(layer) / math.sqrt(len(prompts)) for layer in by_probe]
    else:  # of the draws, for these very probes
        errors = [
            math.sqrt(sum(statistics.variance(probe) / repeats for probe in layer)) / len(prompts) for layer in values
        ]
    assert report.sensitivity.stderr == pytest.approx(errors, abs=2e-5)
    assert report.sensitivity.vulnerable_layer == means.index(max(means))  # 12 % ahead of the next, or more
    even = [statistics.fmean(layer[probe] for probe in (0, 2, 4)) for layer in by_probe]
    assert report.sensitivity.by_task["even"] == pytest.approx(even, abs=2e-5)
    assert report.sensitivity.path == ("full-forward" if slow else "replay")
    assert report.sensitivity.path_reason == ("the test says so" if slow else None)
    assert (report.sensitivity.repeats, report.sensitivity.draws) == (repeats, 5 * repeats)
    assert report.sensitivity.massive_dimensions == 0


def test_a_model_that_replay_cannot_run_agrees_with_the_slow_reference(state_passing_model, token_probes, reference):
    # Several probes of one length: whatever a layer hands on has to be that of its own row.
    probes = [Probe(probe.prompt[:2], probe.target) for probe in token_probes]
    report = diagnose(state_passing_model, probes, config=QUICK)
    values = reference.sensitivity(state_passing_model, "layers", [probe.prompt for probe in probes], QUICK, 2)
    assert report.sensitivity.mean == pytest.approx(np.mean(values, axis=(1, 2)), abs=2e-5)
    assert report.sensitivity.path == "full-forward"
    assert report.lens.valid


def test_lens_task_particle_scores_and_block_influence_agree_with_a_slow_reading(tiny_llama, token_probes, reference):
    model = tiny_llama()
    exact = copy.deepcopy(model).double()
    curves, influence, own, correct = [], [0.0] * 4, [], []
    probes = []
    for number, probe in enumerate(token_probes):
        states, logits = reference.run(exact, exact.model.layers, probe.prompt)
        if number % 2 == 0:  # likely targets, so that some probes are resolved
            probe = Probe(probe.prompt, max(range(len(logits)), key=logits.__getitem__), probe.task)
        probes.append(probe)
        curve = []
        for state in states:
            with torch.no_grad():
                read = exact.lm_head(exact.model.norm(state[0, -1].double())).tolist()
            weights = [math.exp(value - max(read)) for value in read]
            curve.append(weights[probe.target] / sum(weights))
        curves.append(curve)
        own.append(math.log(curve[-1]))
        correct.append(max(range(len(logits)), key=logits.__getitem__) == probe.target)
        for layer in range(4):
            cosines = []
            for before, after in zip(states[layer][0].tolist(), states[layer + 1][0].tolist(), strict=True):
                dot = sum(a * b for a, b in zip(before, after, strict=True))
                cosines.append(dot / math.sqrt(sum(a * a for a in before)) / math.sqrt(sum(b * b for b in after)))
            influence[layer] += (1 - statistics.fmean(cosines)) / len(token_probes)
    report = diagnose(model, probes, config=QUICK)
    assert report.lens.valid
    assert report.lens.error < 1e-5
    for found, expected in zip(report.lens.per_probe, curves, strict=True):
        assert found == pytest.approx(expected, abs=5e-5)
    assert report.lens.mean_probability == pytest.approx(np.mean(curves, axis=0), abs=5e-5)
    expected = []
    for curve in curves:
        highest = max(curve)
        rises = [layer for layer in range(4) if curve[layer + 1] - curve[layer] >= 0.1 * highest]
        expected.append(rises[0] if highest >= 0.01 and rises else None)
    assert report.task_particle.per_probe == expected
    resolved = [layer for layer in expected if layer is not None]
    assert 0 < len(resolved) < 5
    assert report.task_particle.layer == statistics.median(resolved)
    assert report.task_particle.unresolved == 5 - len(resolved)
    assert report.first.scores.mean_log_probability == pytest.approx(statistics.fmean(own), abs=1e-3)
    assert report.first.scores.accuracy == statistics.fmean(correct)
    assert report.first.scores.probability == pytest.approx([c[-1] for c in curves], abs=5e-5)
    assert report.block_influence == pytest.approx(influence, abs=1e-5)


def test_every_architecture_can_be_diagnosed(any_model, token_probes):
    report = diagnose(any_model, token_probes, config=QUICK)
    assert report.lens.valid
    assert report.sensitivity.path == "replay"
    assert report.num_layers == 4
    assert min(report.sensitivity.mean) > 0
    assert report.plan.trained_layers == [0, 1]
    assert report.plan.frozen_layers == [2, 3]


@pytest.mark.parametrize("given", ["skip,mask", ["skip", "mask", "skip"]])
def test_several_perturbations_are_measured_in_one_go(tiny_llama, token_probes, given):
    model = tiny_llama()
    together = diagnose(model, token_probes, config=DiagnosisConfig(perturbation=given, repeats=2))
    assert list(together.first.sensitivities) == ["skip", "mask"]
    for name in ("skip", "mask"):
        alone = diagnose(model, token_probes, config=DiagnosisConfig(perturbation=name, repeats=2))
        assert together.first.sensitivities[name].model_dump() == nearly(alone.sensitivity)
        for note in alone.notes:
            assert note in together.notes or f"Perturbation {name}: {note}" in together.notes
    assert together.sensitivity == together.first.sensitivities["skip"]


def test_by_default_there_are_enough_draws_over_all_probes(tiny_llama, token_probes):
    report = diagnose(tiny_llama(num_hidden_layers=2), token_probes)
    assert report.sensitivity.repeats == math.ceil(160 / 5)
    assert report.sensitivity.draws == 5 * 32
    assert list(report.first.sensitivities) == ["mask", "skip"]
    assert report.first.sensitivities["skip"].draws == 5  # nothing about it is random: once for each probe
    assert max(report.sensitivity.stderr) > 0


def test_text_probes_are_decoded_into_the_report(tiny_llama, tiny_tokenizer):
    probes = [Probe("Rome is the capital city of", " Italy", "facts"), Probe("One, two,", " three", "counting")]
    report = diagnose(tiny_llama(), probes, tokenizer=tiny_tokenizer, config=QUICK)
    assert [(item.prompt, item.target, item.task) for item in report.probes.items] == [
        (probe.prompt, probe.target, probe.task) for probe in probes
    ]
    assert report.probes.tasks == {"facts": 1, "counting": 1}
    assert [len(row) for row in report.lens.top_tokens] == [5, 5]
    for tokens, row in zip(report.lens.top_tokens, report.lens.likely, strict=True):
        assert [cell[0][0] for cell in row] == tokens
        assert all(cell[0][1] >= cell[1][1] >= cell[2][1] for cell in row)


def test_the_builtin_probes_are_used_where_none_are_given(tiny_llama, tiny_tokenizer):
    model = tiny_llama(num_hidden_layers=1, max_position_embeddings=256)
    report = diagnose(model, tokenizer=tiny_tokenizer, config=DiagnosisConfig(repeats=1))
    assert report.probes.count >= 100
    assert len(report.probes.tasks) >= 4


# -- what must not matter --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{"diagnosis_batch_size": 1}, {"diagnosis_batch_size": 3}, {"memory_budget": 100_000}]
)
def test_batches_and_memory_do_not_change_the_result(tiny_llama, token_probes, settings):
    probes = more_of(token_probes, 4)
    base = {"repeats": 3, "perturbation": "mask", "min_probability": 1e-6}
    free = diagnose(tiny_llama(), probes, config=DiagnosisConfig(**base))
    bound = diagnose(tiny_llama(), probes, config=DiagnosisConfig(**base, **settings))
    assert_alike(free, bound, tolerance=5e-6)
    assert bound.first.memory["largest_batch_probes"] < free.first.memory["largest_batch_probes"]


def test_the_order_of_the_probes_changes_only_which_draws_they_get(tiny_llama, token_probes):
    first = diagnose(tiny_llama(), token_probes, config=DiagnosisConfig(perturbation="skip"))
    second = diagnose(tiny_llama(), token_probes[::-1], config=DiagnosisConfig(perturbation="skip"))
    assert first.sensitivity.mean == pytest.approx(second.sensitivity.mean, abs=1e-6)
    assert first.task_particle.per_probe == second.task_particle.per_probe[::-1]


def test_the_padding_side_of_the_tokenizer_does_not_matter(tiny_llama, make_tokenizer):
    probes = [Probe("Rome is the capital city of", " Italy"), Probe("One, two,", " three"), Probe("A cat is", " an")]
    reports = []
    for side in ("left", "right"):
        tokenizer = make_tokenizer("<s> $A")
        tokenizer.padding_side = side
        reports.append(comparable(diagnose(tiny_llama(), probes, tokenizer=tokenizer, config=QUICK)))
    assert reports[0] == nearly(reports[1])


def test_the_same_seed_gives_the_same_report_and_another_seed_other_masks(tiny_llama, token_probes):
    model = tiny_llama()
    first = diagnose(model, token_probes, config=QUICK)
    torch.manual_seed(99)
    # The same computation twice: to the bit.
    assert comparable(diagnose(model, token_probes, config=QUICK)) == comparable(first)
    other = diagnose(model, token_probes, config=DiagnosisConfig(repeats=2, diagnosis_seed=4))
    assert other.sensitivity.mean != pytest.approx(first.sensitivity.mean, rel=1e-3)
    assert other.lens == first.lens


def test_dropout_and_checkpointing_are_off_during_a_diagnosis_in_training_mode(tiny_llama, make_model, token_probes):
    quiet, loud = (
        make_model("GPT2", attn_pdrop=rate, resid_pdrop=rate, embd_pdrop=rate).train() for rate in (0.0, 0.9)
    )
    assert comparable(diagnose(loud, token_probes, config=QUICK)) == nearly(
        comparable(diagnose(quiet, token_probes, config=QUICK))
    )
    model = tiny_llama()
    expected = comparable(diagnose(model, token_probes, config=QUICK))
    model.gradient_checkpointing_enable()
    assert comparable(diagnose(model.train(), token_probes, config=QUICK)) == nearly(expected)


def test_frozen_parameters_and_no_grad_around_it_do_not_matter(tiny_llama, token_probes):
    config = DiagnosisConfig(repeats=2)
    expected = diagnose(tiny_llama(), token_probes, config=config)
    with torch.no_grad():
        found = diagnose(tiny_llama().requires_grad_(False), token_probes, config=config)
    assert_alike(found, expected)


def test_a_peft_model_gives_what_its_merged_model_gives(tiny_llama, token_probes):
    torch.manual_seed(0)
    wrapped = get_peft_model(
        tiny_llama(), LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    ).eval()
    with_adapters = diagnose(wrapped, token_probes, config=QUICK)
    merged = diagnose(copy.deepcopy(wrapped).merge_and_unload(), token_probes, config=QUICK)
    plain = diagnose(tiny_llama(), token_probes, config=QUICK)
    assert_alike(with_adapters, merged, tolerance=1e-4)
    assert with_adapters.sensitivity.mean != pytest.approx(plain.sensitivity.mean, abs=1e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.bfloat16, 0.05)])
def test_other_data_types_give_nearly_the_same(tiny_llama, token_probes, dtype, tolerance):
    expected = diagnose(tiny_llama(), token_probes, config=QUICK)
    found = diagnose(tiny_llama().to(dtype), token_probes, config=QUICK)
    assert found.lens.valid
    assert found.sensitivity.path == "replay"
    assert found.sensitivity.mean == pytest.approx(expected.sensitivity.mean, abs=tolerance)
    assert found.lens.mean_probability == pytest.approx(expected.lens.mean_probability, abs=tolerance)


# -- the model is left as it was -------------------------------------------------------------------------------------


def snapshot(model):
    return SimpleNamespace(
        weights={name: value.clone() for name, value in model.state_dict().items()},
        buffers={name: value.clone() for name, value in model.named_buffers()},
        modes=[child.training for child in model.modules()],
        hooks=[
            (len(child._forward_hooks), len(child._forward_pre_hooks), len(child._backward_hooks))
            for child in model.modules()
        ],
        attributes=[set(vars(child)) for child in model.modules()],
        required=[parameter.requires_grad for parameter in model.parameters()],
        streams=(random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
        grad_mode=torch.is_grad_enabled(),
        config=model.config.to_dict(),
    )


def assert_unchanged(model, before):
    after = snapshot(model)
    for kind in ("weights", "buffers"):
        then, now = getattr(before, kind), getattr(after, kind)
        assert then.keys() == now.keys()
        assert all(torch.equal(then[name], now[name]) for name in then)
    for kind in ("modes", "hooks", "attributes", "required", "streams", "grad_mode", "config"):
        assert getattr(before, kind) == getattr(after, kind), kind
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.fixture
def lived_in(make_model):
    """A model with mixed modes, frozen parameters and a hook of somebody else's."""

    def make(name="Llama"):
        model = make_model(name).train()
        parts = find_parts(model)
        parts.layers[1].eval()
        next(parts.layers[2].children()).eval()
        next(iter(parts.layers[3].parameters())).requires_grad_(False)
        parts.layers[0].register_forward_hook(lambda *_: None)
        return model

    return make


@pytest.mark.parametrize("name", ["Llama", "GPT2", "Gemma2", "Mamba"])
def test_a_diagnosis_leaves_the_model_exactly_as_it_was(lived_in, token_probes, name):
    model = lived_in(name)
    before = snapshot(model)
    diagnose(model, token_probes, config=DiagnosisConfig(repeats=2))
    assert_unchanged(model, before)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("call", [1, 3, 6, 11])
def test_an_error_inside_a_layer_leaves_the_model_exactly_as_it_was(lived_in, token_probes, error, call):
    model = lived_in()
    target, calls = model.model.layers[3].mlp, []

    def fail(*_):
        calls.append(1)
        if len(calls) >= call:
            raise error("deliberate")

    handle = target.register_forward_pre_hook(fail)
    before = snapshot(model)
    # The first six calls are of the runs that show whether the model can be traced at all; an error in the check of
    # replay is taken for a reason not to replay, and comes back on the slow path.
    refused = call <= 6 and error is RuntimeError
    with pytest.raises(UntraceableModelError if refused else error, match="deliberate"):
        diagnose(model, token_probes, config=DiagnosisConfig(repeats=8, diagnosis_batch_size=1))
    assert_unchanged(model, before)
    handle.remove()


def test_an_interrupt_from_the_progress_bar_leaves_the_model_exactly_as_it_was(lived_in, token_probes, monkeypatch):
    class Bar(progress.tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    monkeypatch.setattr(progress, "tqdm", Bar)
    model = lived_in()
    before = snapshot(model)
    with pytest.raises(KeyboardInterrupt):
        diagnose(model, token_probes, config=DiagnosisConfig(repeats=2))
    assert_unchanged(model, before)


@pytest.mark.parametrize("perturbation", ["mask", "skip"])
def test_one_bar_counts_verification_and_values_to_its_end(
    tiny_llama, token_probes, monkeypatch, capsys, perturbation
):
    seen: list[tuple[str, int, int]] = []

    class Bar(progress.tqdm):
        def close(self):
            seen.append((self.desc, self.n, self.total))
            super().close()

    logging.enable_progress_bar()
    monkeypatch.setattr(progress, "tqdm", Bar)
    diagnose(tiny_llama(), token_probes, config=DiagnosisConfig(perturbation=perturbation, repeats=2))
    lengths = {len(probe.prompt) for probe in token_probes}
    checks = 3 * (3 + 2 * (len(lengths) - 1))  # rows: from 3 layers at the longest prompt, from 2 at each other length
    values = 4 * len(token_probes) * (2 if perturbation == "mask" else 1)
    assert set(seen) == {("Diagnosing 4 layers: ", checks + values, checks + values)}
    assert capsys.readouterr().err == ""  # in a pipe, short work says nothing


def test_refused_probes_leave_the_model_exactly_as_it_was(lived_in):
    model = lived_in()
    before = snapshot(model)
    with pytest.raises(LayerTracerError):
        diagnose(model, [Probe((1, 2), 9999)])
    assert_unchanged(model, before)


def test_a_model_diagnosed_twice_and_trained_in_between_still_trains(tiny_llama, token_probes):
    model = tiny_llama().train()
    first = diagnose(model, token_probes, config=QUICK)
    ids = torch.tensor([[5, 80, 31, 7]])
    model(input_ids=ids, labels=ids).loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter -= 0.05 * parameter.grad
    assert diagnose(model, token_probes, config=QUICK).lens != first.lens
    assert all(parameter.grad is not None for parameter in model.parameters())


# -- edges -----------------------------------------------------------------------------------------------------------


def test_skipping_a_layer_that_does_nothing_has_no_sensitivity(tiny_llama, token_probes):
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.zero_()
        model.model.layers[1].mlp.down_proj.weight.zero_()
    report = diagnose(model, token_probes, config=DiagnosisConfig(perturbation="skip"))
    assert report.sensitivity.mean[1] == pytest.approx(0, abs=1e-6)
    assert report.block_influence[1] == pytest.approx(0, abs=1e-6)
    assert report.sensitivity.vulnerable_layer != 1


def test_probes_that_are_never_likely_are_unresolved_and_counted(tiny_llama, token_probes):
    report = diagnose(tiny_llama(), token_probes, config=DiagnosisConfig(repeats=1, min_probability=1.0))
    assert report.task_particle.layer is report.task_particle.quartiles is report.task_particle.interval is None
    assert report.task_particle.per_probe == [None] * 5
    assert report.task_particle.unresolved == 5
    assert any("5 of 5 probes are unresolved" in note for note in report.notes)


def test_a_single_probe_with_a_single_draw_says_that_its_error_is_unknown(tiny_llama, token_probes):
    report = diagnose(tiny_llama(), token_probes[:1], config=DiagnosisConfig(repeats=1))
    assert report.sensitivity.stderr == [0.0] * 4
    assert report.sensitivity.draws == 1
    assert any("single perturbation" in note for note in report.notes)


def test_a_single_token_and_a_single_layer_can_be_diagnosed(tiny_llama):
    report = diagnose(tiny_llama(num_hidden_layers=1), [Probe((7,), 9)], config=QUICK)
    assert report.num_layers == 1
    assert len(report.lens.mean_probability) == 2


def test_masking_every_dimension_of_the_last_layer_leaves_only_the_head(tiny_llama, token_probes, reference):
    # All states are 0 then, so the output is that of a hidden state of 0: uniform for a head without bias.
    model = tiny_llama()
    report = diagnose(model, token_probes, config=DiagnosisConfig(mask_ratio=1.0, repeats=1))
    expected = []
    for probe in token_probes:
        _, logits = reference.run(model, model.model.layers, probe.prompt)
        expected.append(reference.jensen_shannon(logits, [0.0] * 320))
    assert report.sensitivity.mean[-1] == pytest.approx(statistics.fmean(expected), abs=1e-5)


def mean_so_far(states: torch.Tensor) -> torch.Tensor:
    """The mean over each position and those before it."""
    return states.cumsum(1) / torch.arange(1, states.shape[1] + 1)[:, None]


def test_a_lens_that_does_not_give_the_models_output_is_reported_and_left_out(tiny_llama, token_probes):
    model = tiny_llama()
    model.lm_head.weight.data *= 4
    # What the first layer leaves for the final norm is missing where that layer does not run.
    kept = []
    model.model.layers[0].mlp.register_forward_hook(lambda *args: kept.append(mean_so_far(args[-1])))
    model.model.norm.register_forward_pre_hook(lambda _, args: (args[0] + (kept.pop() if kept else 0),))
    report = diagnose(model, token_probes, config=QUICK)
    assert not report.lens.valid
    assert "not the model's own output" in report.lens.reason
    assert report.lens.mean_probability == []
    assert report.task_particle.unresolved == 5
    assert any("lens is not valid" in note for note in report.notes)
    assert min(report.sensitivity.mean) > 0


def test_a_lens_that_needs_whole_prompts_is_given_them(tiny_llama, token_probes, reference):
    model = tiny_llama()
    embedded = []
    model.model.embed_tokens.register_forward_hook(lambda *args: embedded.append(args[-1]))
    # The embeddings at all earlier positions go around the layers.
    model.model.norm.register_forward_pre_hook(lambda _, args: (args[0] + mean_so_far(embedded[-1]),))
    report = diagnose(model, token_probes, config=QUICK)
    assert report.lens.valid
    states, _ = reference.run(model, model.model.layers, token_probes[0].prompt)
    for depth, state in enumerate(states):
        edited = reference.run(model, model.model.layers, token_probes[0].prompt, {3: lambda *_, state=state: state})[
            1
        ]
        expected = torch.tensor(edited, dtype=torch.float64).softmax(-1)[token_probes[0].target]
        assert report.lens.per_probe[0][depth] == pytest.approx(float(expected), abs=1e-5)


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        ([], "There are no probes"),
        ([Probe((5, 6), 320)], "Probe 0: target token 320 is outside the model's vocabulary of 320"),
        ([Probe((5, 6), 7), Probe((5, 6), -1)], "Probe 1: target token -1 is outside"),
        ([Probe((5, 6), 7), Probe((5, 320), 7)], "Probe 1: token 320 of the prompt is outside.* vocabulary of 320"),
        ([Probe((5, -2), 7)], "Probe 0: token -2 of the prompt is outside"),
        ([Probe((5,) * 65, 7)], "65 tokens long.* context is 64"),
        ([Probe("text", " text")], "pass the model's tokenizer"),
    ],
)
def test_probes_that_the_model_cannot_be_asked_are_refused(tiny_llama, probes, message):
    with pytest.raises(LayerTracerError, match=message) as caught:
        diagnose(tiny_llama(), probes, config=QUICK)
    assert not isinstance(caught.value, UntraceableModelError)


def test_a_model_whose_output_is_not_a_number_is_refused(tiny_llama, token_probes):
    model = tiny_llama()
    model.lm_head.weight.data[7] = math.nan
    with pytest.raises(LayerTracerError, match="NaN before anything is perturbed"):
        diagnose(model, token_probes, config=QUICK)


def test_a_perturbation_that_overflows_names_the_layer(tiny_llama, token_probes):
    model = tiny_llama()
    # Fine in the clean runs and in the check of replay, which have few rows.
    model.model.layers[2].mlp.register_forward_hook(lambda _, args, out: out * math.nan if len(out) > 9 else out)
    with pytest.raises(
        LayerTracerError, match=r"Perturbing layer \d made the model's output NaN or infinite in torch.f"
    ):
        diagnose(model, [Probe((5, 6, 7), 8)], config=DiagnosisConfig(repeats=40, diagnosis_batch_size=1))


def test_a_model_that_is_no_causal_language_model_is_refused(tiny_llama, token_probes):
    with pytest.raises(UntraceableModelError, match="not a causal language model"):
        diagnose(tiny_llama().model, token_probes)
    with pytest.raises(UntraceableModelError, match="No list of decoder layers"):
        diagnose(nn.Linear(3, 3), token_probes)


def test_a_wrong_path_of_layers_and_a_tiny_budget_are_refused(tiny_llama, token_probes):
    with pytest.raises(LayerTracerError, match=r"no module 'model\.blocks'"):
        diagnose(tiny_llama(), token_probes, config=DiagnosisConfig(layers_path="model.blocks"))
    with pytest.raises(LayerTracerError, match="memory_budget=100 is too small"):
        diagnose(tiny_llama(), token_probes, config=DiagnosisConfig(memory_budget=100))


# -- calls from elsewhere ----------------------------------------------------------------------------------------------


def test_a_diagnosis_from_inside_inference_mode_is_the_same(tiny_llama, token_probes):
    model, config = tiny_llama(), DiagnosisConfig(repeats=2)
    expected = diagnose(model, token_probes, config=config)
    with torch.inference_mode():
        found = diagnose(model, token_probes, config=config)
    assert found.sensitivity.model_dump() == nearly(expected.sensitivity)


def test_running_out_of_memory_in_a_clean_run_halves_the_batch_and_changes_no_value(
    tiny_llama, token_probes, monkeypatch
):
    model, config = tiny_llama(), DiagnosisConfig(repeats=2)
    expected = diagnose(model, more_of(token_probes, 2), config=config)
    own, sizes = engine.LayerStack.run, []

    def limited(stack, input_ids, *how):
        sizes.append(len(input_ids))
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return own(stack, input_ids, *how)

    monkeypatch.setattr(engine.LayerStack, "run", limited)
    found = diagnose(model, more_of(token_probes, 2), config=config)
    assert max(sizes) > 2
    assert found.first.memory["largest_batch_probes"] == 2
    assert found.sensitivity.mean == pytest.approx(expected.sensitivity.mean, abs=1e-6)
    assert found.block_influence == pytest.approx(expected.block_influence, abs=1e-6)
    assert found.lens.mean_probability == pytest.approx(expected.lens.mean_probability, abs=1e-6)


# -- layers that text does not run -----------------------------------------------------------------------------------


@pytest.mark.parametrize("perturbation", ["mask", "skip"])
def test_layers_that_text_does_not_run_have_the_values_of_what_passes_them_by(perturbation):
    model = tiny_model(tiny_config("mllama"))  # its last layer attends to pictures
    probes = [Probe((5, 80, 31, 7), 9), Probe((33, 34, 50), 4)]
    config = DiagnosisConfig(perturbation=perturbation, repeats=3, min_probability=1e-6)
    report = diagnose(model, probes, config=config)
    assert [layer.kind for layer in report.model.layers] == ["full_attention"] * 3 + ["cross_attention"]
    assert any("Layers [3] do not run on text alone" in note for note in report.notes)
    assert report.lens.valid
    assert report.lens.mean_probability[4] == pytest.approx(report.lens.mean_probability[3], abs=1e-6)
    assert report.block_influence[3] == pytest.approx(0, abs=1e-6)
    assert report.block_influence[2] > 1e-3
    mean = report.sensitivity.mean
    assert mean[2] > 0
    assert mean[3] == pytest.approx(mean[2] if perturbation == "mask" else 0, abs=1e-6)


# -- kinds, and layers without derivatives ---------------------------------------------------------------------------


def test_a_model_of_several_kinds_is_summed_up_by_kind(make_model, token_probes):
    hybrid, plain = (
        diagnose(make_model("Gemma2"), token_probes, config=QUICK),
        diagnose(make_model("Llama"), token_probes, config=QUICK),
    )
    mean = hybrid.sensitivity.mean
    expected = (
        f"Layers by kind, with their mean sensitivity: 2 sliding_attention {(mean[0] + mean[2]) / 2:.3f}, "
        f"2 full_attention {(mean[1] + mean[3]) / 2:.3f}."
    )
    assert expected in hybrid.notes
    assert not any("by kind" in note for note in plain.notes)


def test_copies_of_a_probe_are_measured_once_and_said_to_be(tiny_llama, token_probes):
    model = tiny_llama()
    once = diagnose(model, token_probes)
    thrice = diagnose(model, [*token_probes, *token_probes, token_probes[0]])
    assert thrice.probes == once.probes
    assert "6 of 11 probes are copies" in thrice.notes[0]
    assert thrice.sensitivity == once.sensitivity


def test_probes_and_settings_come_in_several_forms(tiny_llama, tiny_tokenizer, tmp_path):
    model, row = tiny_llama(), {"prompt": "Rome is the capital city of", "target": " Italy"}
    (tmp_path / "probes.jsonl").write_text(json.dumps(row) + "\n")
    for probes in (tmp_path / "probes.jsonl", str(tmp_path / "probes.jsonl"), [row], [Probe(**row)]):
        for config in (LayerTracerConfig(perturbation="skip"), {"perturbation": "skip"}):
            report = diagnose(model, probes, tokenizer=tiny_tokenizer, config=config)
            assert report.probes.count == 1
            assert report.settings == DiagnosisConfig(perturbation="skip")


def test_accuracy_over_the_choices_asks_which_of_them_is_likeliest(tiny_llama, tiny_tokenizer):
    model, choices = tiny_llama(), (" is", " the", " of")
    with torch.no_grad():
        logits = model(**tiny_tokenizer("Rome", return_tensors="pt")).logits[0, -1]
    ids = [tiny_tokenizer("Rome" + choice)["input_ids"][-1] for choice in choices]
    best = choices[int(logits[ids].argmax())]
    for target in choices:
        report = diagnose(model, [Probe("Rome", target, choices=choices)], tokenizer=tiny_tokenizer)
        assert report.latest.scores.choice_accuracy == float(target == best)
        assert report.latest.scores.choice_chance == pytest.approx(1 / 3)
    assert diagnose(model, [Probe("Rome", " is")], tokenizer=tiny_tokenizer).latest.scores.choice_accuracy is None
