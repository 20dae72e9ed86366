"""How often the standard errors of Layer Sensitivity cover the truth, over many seeds on a tiny model."""

from __future__ import annotations

import numpy as np
import torch

from hf_layertracer import DiagnosisConfig
from hf_layertracer.diagnosis.layer_stack import LayerStack
from hf_layertracer.diagnosis.measurements import Batch, Subject
from hf_layertracer.diagnosis.measurements.sensitivity import LayerSensitivity
from hf_layertracer.diagnosis.perturbations import PERTURBATIONS
from hf_layertracer.modeling import find_parts
from hf_layertracer.probes.encoding import EncodedProbe

from .scaling import make_model


SEEDS, PROBES, LENGTH, REPEATS = 300, 12, 6, 12
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
    ]


def _both(beyond: np.ndarray) -> str:
    return f"{(beyond < 1).mean():.3f}, {(beyond < 2).mean():.3f}"
