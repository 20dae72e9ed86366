"""How often the standard errors of Layer Sensitivity cover the truth over many seeds, and what balanced masks and control
variates gain."""

from __future__ import annotations

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_layertracer import DiagnosisConfig, load_probes
from hf_layertracer.demo.model import demo_model
from hf_layertracer.diagnosis.divergence import jensen_shannon
from hf_layertracer.diagnosis.estimation import (
    dimensions_to_correct,
    estimate_means,
    mask_predictors,
    massive_shares,
)
from hf_layertracer.diagnosis.layer_stack import LayerStack
from hf_layertracer.diagnosis.measurements import Batch, Subject
from hf_layertracer.diagnosis.measurements.sensitivity import LayerSensitivity
from hf_layertracer.diagnosis.perturbations import PERTURBATIONS, Draw
from hf_layertracer.diagnosis.precision import wanted_dtype
from hf_layertracer.modeling import find_parts
from hf_layertracer.probes.encoding import EncodedProbe

from .scaling import make_model


SEEDS, PROBES, LENGTH, REPEATS = 300, 12, 6, 12
# The demo model: few layers, probes of one length.
GAIN_SEEDS, GAIN_PROBES, GAIN_REPEATS, GAIN_LAYERS = 32, 12, 8, (2, 7, 12, 17, 22, 27)
_FEW = 2  # repeats
_MASSIVE = {5: 60.0, 23: 40.0}  # dimensions that layer 1 makes massive, as trained models have them


@torch.no_grad()
def run() -> list[tuple[str, str]]:
    """Diagnoses the same probes with many seeds; the truth is the mean over all of them.

    Returns:
        `list[tuple[str, str]]`: Rows of the results.
    """
    model = make_model(layers=6)
    for dimension, factor in _MASSIVE.items():
        model.model.layers[1].mlp.down_proj.weight[dimension] *= factor
    stack = LayerStack(find_parts(model))
    ids = torch.randint(0, 1000, (PROBES, LENGTH), generator=torch.Generator().manual_seed(0))
    clean = stack.run(ids)
    probes = [EncodedProbe(tuple(row), 7, "all") for row in ids.tolist()]
    batch = Batch(list(range(PROBES)), torch.zeros(PROBES, dtype=torch.long), clean, 160)
    means, errors, plain, independent = [], [], [], []
    for seed in range(SEEDS):
        config = DiagnosisConfig(perturbation="mask", repeats=REPEATS, diagnosis_seed=seed)
        measurement = LayerSensitivity(PERTURBATIONS["mask"](config))
        measurement.start(Subject(stack, probes, config, None, clean, lambda _: None))
        measurement.observe(batch)
        measurement.more()
        found = measurement.result()["sensitivities"]["mask"]
        means.append(found.mean)
        errors.append(found.stderr)
        of_probes = measurement.values.mean(1)
        plain.append(of_probes.mean(1))
        independent.append(of_probes.std(1, ddof=1) / PROBES**0.5)
    truth = np.mean(plain, axis=0)
    beyond = np.abs(np.array(means) - truth) / np.array(errors)
    before = np.abs(np.array(plain) - truth) / np.array(independent)
    gain = (np.var(plain, axis=0) / np.var(means, axis=0)).mean()
    what = f"{SEEDS} seeds, {PROBES} probes x {REPEATS} masks"
    return [
        (f"truth within 1 and 2 standard errors ({what}; ideal: 0.68, 0.95)", _both(beyond)),
        ("the same, with errors over probes and without the correction for massive dimensions", _both(before)),
        ("variance of plain means / of corrected means, mean over layers", f"{gain:.2f}"),
        *gains_on_the_demo_model(),
    ]


@torch.no_grad()
def gains_on_the_demo_model() -> list[tuple[str, str]]:
    """Means over masks with many seeds: how much they vary where masks are independent, where they share permutations, and
    where means are corrected beside.

    Returns:
        `list[tuple[str, str]]`: Rows of the results.
    """
    folder = demo_model()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    lengths: dict[int, list[list[int]]] = {}
    for probe in load_probes():
        ids = tokenizer(probe.prompt)["input_ids"]
        lengths.setdefault(len(ids), []).append(ids)
    ids = torch.tensor(next(rows for _, rows in sorted(lengths.items()) if len(rows) >= GAIN_PROBES)[:GAIN_PROBES])
    stack = LayerStack(find_parts(model.eval()))
    clean = stack.run(ids)
    dtype = wanted_dtype(stack, DiagnosisConfig(), clean.width)
    shares = massive_shares(clean)[list(GAIN_LAYERS)]
    plain: dict[int, list[np.ndarray]] = {_FEW: [], GAIN_REPEATS: []}
    corrected: dict[int, list[np.ndarray]] = {_FEW: [], GAIN_REPEATS: []}
    every = []
    for seed in range(GAIN_SEEDS):
        mask = PERTURBATIONS["mask"](DiagnosisConfig(diagnosis_seed=seed))
        draws = [Draw(row, repeat, GAIN_PROBES) for repeat in range(GAIN_REPEATS) for row in range(GAIN_PROBES)]
        rows, perturb = [draw.probe for draw in draws], mask.on(draws, clean.width)
        answers = [perturb(layer, clean.inputs[layer][rows], clean.states[layer + 1][rows]) for layer in GAIN_LAYERS]
        values = np.stack(
            [
                jensen_shannon(clean.logits[rows], stack.replay(clean, layer, [answer], ids[rows], dtype)[0]).numpy()
                for layer, answer in zip(GAIN_LAYERS, answers, strict=True)
            ]
        )
        every.append(values)
        masks = mask.masks(draws, clean.width).numpy()
        designs = np.array([mask.design(draw, clean.width) for draw in draws])
        for repeats in plain:
            for part in np.split(np.arange(len(draws)), GAIN_REPEATS // repeats):
                size = dimensions_to_correct(len(part), GAIN_PROBES)
                known = mask_predictors(masks[part], shares, size)
                estimate = estimate_means(values[:, part], np.array(rows)[part], designs[part], known)
                plain[repeats].append(values[:, part].mean(1))
                corrected[repeats].append(estimate.mean)
    within = np.concatenate(every, 1).reshape(len(GAIN_LAYERS), -1, GAIN_PROBES).var(1, ddof=1).mean(1)
    table = []
    for repeats in plain:
        what = f"demo model, {len(plain[repeats])} seeds, {GAIN_PROBES} probes x {repeats} masks, {len(GAIN_LAYERS)} layers"
        balanced, both = (np.var(means[repeats], axis=0, ddof=1) for means in (plain, corrected))
        independent = within / (GAIN_PROBES * repeats)
        table += [
            (f"variance of plain means / of corrected means ({what})", f"{(balanced / both).mean():.2f}"),
            ("the same, if masks were independent", f"{(independent / both).mean():.2f}"),
        ]
    return table


def _both(beyond: np.ndarray) -> str:
    return f"{(beyond < 1).mean():.3f}, {(beyond < 2).mean():.3f}"
