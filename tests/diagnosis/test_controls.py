"""The lens's negative controls: targets of other probes, and the final norm left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_layertracer import DiagnosisConfig, Probe, diagnose
from hf_layertracer.diagnosis.controls import control_targets, final_norm, summarise_control
from hf_layertracer.diagnosis.layer_stack import LayerStack
from hf_layertracer.modeling import find_parts
from hf_layertracer.probes.encoding import EncodedProbe


def probes_of(targets, tasks="a"):
    return [EncodedProbe((1, 2), target, task) for target, task in zip(targets, tasks * len(targets), strict=False)]


# -- targets ---------------------------------------------------------------------------------------------------------


def test_the_control_targets_are_seeded_targets_of_others_of_the_same_task():
    probes = probes_of(range(40), "ab")
    others = control_targets(probes, 0)
    assert others.shape == (40, 8)
    for probe, row in zip(probes, others, strict=True):
        assert len(set(row)) == 8
        assert probe.target_id not in row
        assert all(probes[token].task == probe.task for token in row)
    assert (others == control_targets(probes, 0)).all()
    assert (others != control_targets(probes, 1)).any()


def test_a_task_with_too_few_targets_takes_those_of_other_tasks():
    probes = [*probes_of([5, 5, 6], "a"), *probes_of([7, 8], "b")]
    others = control_targets(probes, 0)
    assert others.shape == (5, 3)
    for probe, row in zip(probes, others, strict=True):
        assert sorted([probe.target_id, *row]) == [5, 6, 7, 8]
    assert set(others[0][:1]) == {6}  # its own task comes first


@pytest.mark.parametrize("targets", [[3], [3, 3]])
def test_where_all_targets_are_one_there_is_no_control(targets):
    assert control_targets(probes_of(targets), 0) is None


# -- what they show ----------------------------------------------------------------------------------------------------

CONFIG = DiagnosisConfig()


def test_a_rise_that_only_the_own_target_shows_is_supported():
    curves = np.tile([0.0, 0.0, 0.5, 0.6], (6, 1))
    control = np.full((6, 8, 4), 0.001)
    found = summarise_control(curves, control, [1] * 6, CONFIG)
    assert (found.targets, found.layers, found.unsupported, found.resolved) == (8, [], 0, 0.0)
    assert found.mean_probability == pytest.approx([0.001] * 4)
    assert found.stderr == pytest.approx([0.0] * 4)


def test_a_rise_that_all_targets_share_is_named():
    # At layer 1 whatever could be an answer rises; at layer 2 only the answer does.
    rng = np.random.default_rng(0)
    shared = rng.uniform(0.1, 0.2, (60, 9))
    curves = np.stack([np.zeros(60), np.zeros(60), shared[:, 0], shared[:, 0] + 0.3], 1)
    control = np.stack([np.zeros((60, 8)), np.zeros((60, 8)), shared[:, 1:], shared[:, 1:]], 2)
    found = summarise_control(curves, control, [1] * 60, CONFIG)
    assert found.layers == [1]
    assert found.unsupported == sum(shared[:, 0] <= shared[:, 1:].max(1)) > 30
    assert found.resolved == 1.0


def test_a_few_large_rises_do_not_hide_that_all_others_are_chance():
    rng = np.random.default_rng(1)
    rises = rng.uniform(0, 0.1, (50, 9))
    rises[:2, 0] = 0.9
    curves, control = np.stack([np.zeros(50), rises[:, 0]], 1), np.stack([np.zeros((50, 8)), rises[:, 1:]], 2)
    assert summarise_control(curves, control, [None] * 50, CONFIG).layers == [0]


# -- in a diagnosis ----------------------------------------------------------------------------------------------------


def test_the_control_is_the_lens_of_the_other_targets(tiny_llama, token_probes, reference):
    model = tiny_llama()
    report = diagnose(model, token_probes, config=DiagnosisConfig(perturbation="skip", repeats=1))
    expected = []
    for number, probe in enumerate(token_probes):
        others = control_targets([EncodedProbe(tuple(p.prompt), p.target, p.task) for p in token_probes], 0)[number]
        states, _ = reference.run(model, model.model.layers, probe.prompt)
        with torch.no_grad():
            read = [model.lm_head(model.model.norm(state[0, -1])).softmax(-1)[others].mean() for state in states]
        expected.append([float(value) for value in read])
    assert report.lens.control.mean_probability == pytest.approx(np.mean(expected, 0), abs=1e-5)
    assert report.lens.control.targets == len({probe.target for probe in token_probes}) - 1


def test_the_lens_without_the_norm_is_the_head_on_the_bare_state(tiny_llama, token_probes, reference):
    model = tiny_llama()
    report = diagnose(
        model, token_probes, config=DiagnosisConfig(perturbation="skip", repeats=1, min_probability=1e-4)
    )
    expected = []
    for probe in token_probes:
        states, _ = reference.run(model, model.model.layers, probe.prompt)
        with torch.no_grad():
            expected.append([float(model.lm_head(state[0, -1]).softmax(-1)[probe.target]) for state in states])
    assert report.lens.without_norm.mean_probability == pytest.approx(np.mean(expected, 0), abs=1e-5)
    assert report.lens.without_norm.mean_probability != pytest.approx(report.lens.mean_probability, abs=1e-4)
    assert model.model.norm.__dict__.get("forward") is None


def test_the_final_norm_is_found_or_not_left_out(any_model):
    norm = final_norm(find_parts(any_model))
    assert norm is None or "norm" in type(norm).__name__.lower()
    assert LayerStack(find_parts(any_model)).final_norm is norm
    assert norm is None or norm not in {m for layer in find_parts(any_model).layers for m in layer.modules()}


def test_a_norm_that_cannot_be_left_out_costs_nothing_but_the_check(tiny_llama, token_probes):
    model = tiny_llama()
    # What follows uses a value that only the norm's own forward leaves behind.
    model.model.norm.register_forward_pre_hook(lambda module, args: setattr(module, "seen", args[0].mean()))
    model.lm_head.register_forward_pre_hook(
        lambda module, args: (args[0] + 0 * model.model.norm.__dict__.pop("seen"),)
    )
    report = diagnose(model, token_probes, config=DiagnosisConfig(perturbation="skip", repeats=1))
    assert report.lens.valid
    assert report.lens.without_norm is None
    assert report.lens.control is not None


def test_a_single_probe_has_no_control_and_notes_say_nothing_of_it(tiny_llama):
    report = diagnose(tiny_llama(num_hidden_layers=2), [Probe((5, 6, 7), 8)], config=DiagnosisConfig(repeats=1))
    assert report.lens.control is None
    assert not any("another probe" in note for note in report.notes)


def test_rises_that_are_no_more_than_those_of_others_are_notes(tiny_llama, token_probes):
    # Random weights know no answer: what rises, rises by chance.
    config = DiagnosisConfig(perturbation="skip", repeats=1, min_probability=1e-6)
    report = diagnose(tiny_llama(), token_probes, config=config)
    control = report.lens.control
    assert control.layers or control.unsupported
    said = " ".join(report.notes)
    assert ("no more than that of other probes' targets" in said) == bool(control.layers)
    assert ("the target of another probe rises at the task particle" in said) == bool(control.unsupported)
