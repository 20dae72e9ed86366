"""Layer Sensitivity of the demo model in three ways: naive, by suffix replay, and estimated from gradients."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_layertracer import DiagnosisConfig, diagnose, load_probes
from hf_layertracer.demo.model import demo_model
from hf_layertracer.diagnosis.divergence import jensen_shannon
from hf_layertracer.diagnosis.perturbations.mask import dimension_mask
from hf_layertracer.diagnosis.statistics import rank_correlation
from hf_layertracer.modeling import find_parts
from hf_layertracer.probes.encoding import EncodedProbe, encode_probes, equal_length_batches


REPEATS = 4
NAIVE_PROBES = 18  # of 144: the naive loop takes the longest, and each of its draws as long as the others
_BATCH_TOKENS = 1024  # as in the package, so that the ways differ in what they compute and not in how it is batched


def naive_sensitivity(model: nn.Module, probes: list[EncodedProbe], numbers: list[int], repeats: int) -> np.ndarray:
    """What one would write first: a hook that masks one layer's output, a whole forward pass, for every layer.

    Args:
        model (`nn.Module`): The model.
        probes (`list[EncodedProbe]`): The probes.
        numbers (`list[int]`): Their numbers among all probes, which decide on their masks.
        repeats (`int`): Masks per probe.

    Returns:
        `np.ndarray`: Divergences in bits, of shape `(layers, probes, repeats)`.
    """
    layers = find_parts(model).layers
    values = np.empty((len(layers), len(probes), repeats))
    for batch in equal_length_batches([len(probe.input_ids) for probe in probes], 1 << 30):
        ids = torch.tensor([probes[index].input_ids for index in batch])
        pairs = [(row, repeat) for repeat in range(repeats) for row in range(len(batch))]
        size = max(1, _BATCH_TOKENS // ids.shape[1])
        with torch.no_grad():
            clean = model(input_ids=ids, use_cache=False).logits[:, -1]
            for start in range(0, len(pairs), size):
                chunk = pairs[start : start + size]
                rows = [row for row, _ in chunk]
                draws = [numbers[batch[row]] * repeats + repeat for row, repeat in chunk]
                width = model.config.hidden_size
                masks = torch.stack([dimension_mask(width, 0.3, 0, draw) for draw in draws])[:, None]
                for index, layer in enumerate(layers):
                    hook = layer.register_forward_hook(lambda _m, _i, out, masks=masks: out.masked_fill(masks, 0))
                    disturbed = model(input_ids=ids[rows], use_cache=False).logits[:, -1]
                    hook.remove()
                    for (row, repeat), value in zip(chunk, jensen_shannon(clean[rows], disturbed), strict=True):
                        values[index, batch[row], repeat] = value
    return values


def run() -> list[tuple[str, str]]:
    """Times the three ways on the same draws and compares what they find.

    Returns:
        `list[tuple[str, str]]`: Rows of the results.
    """
    folder = demo_model()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    probes = load_probes()
    encoded = encode_probes(probes, tokenizer)
    some = list(range(0, len(probes), len(probes) // NAIVE_PROBES))

    def timed(work, *args, **kwargs):
        start = time.perf_counter()
        return work(*args, **kwargs), time.perf_counter() - start

    def diagnosed(estimator: str, chosen: list, repeats: int = REPEATS):
        settings = DiagnosisConfig(estimator=estimator, repeats=repeats)
        report = diagnose(model, chosen, tokenizer=tokenizer, config=settings)
        return report, sum(seconds for part, seconds in report.first.durations.items() if part != "lens")

    diagnosed("exact", probes[:4])  # warm up
    subset = [encoded[index] for index in some]
    # The naive loop and the replay alternate on the same probes and masks.
    naive_seconds, replay_seconds = [], []
    for _ in range(2):
        naive, seconds = timed(naive_sensitivity, model, subset, list(range(len(subset))), REPEATS)
        naive_seconds.append(seconds)
        replayed, seconds = diagnosed("exact", [probes[index] for index in some])
        replay_seconds.append(seconds)
    difference = np.abs(naive.mean((1, 2)) - replayed.sensitivity.mean).max()
    exact, exact_seconds = diagnosed("exact", probes)
    estimate, estimate_seconds = diagnosed("gradient", probes)
    # The naive loop on all probes is as many times slower than the replay as it was on some of them.
    ratio = sum(naive_seconds) / sum(replay_seconds)
    correlation = rank_correlation(np.array(exact.sensitivity.mean), np.array(estimate.sensitivity.mean))
    short, short_seconds = diagnosed("gradient", probes, 2)
    short_correlation = rank_correlation(np.array(exact.sensitivity.mean), np.array(short.sensitivity.mean))
    draws = exact.sensitivity.draws
    return [
        ("naive time / replay time, same probes and masks", f"{ratio:.2f}"),
        ("largest difference between the two, in bits", f"{difference:.1e}"),
        (f"gradient estimate's time / naive time, {draws} draws", f"{estimate_seconds / (exact_seconds * ratio):.3f}"),
        (
            f"its rank correlation with the exact sensitivity ({estimate.sensitivity.calibration_draws} draws measured)",
            f"{correlation:.3f}",
        ),
        ("split-half rank stability of the exact sensitivity itself", f"{exact.sensitivity.rank_stability:.3f}"),
        (
            f"the estimate with {short.sensitivity.calibration_draws} of {short.sensitivity.draws} draws measured: "
            "rank correlation",
            f"{short_correlation:.3f}",
        ),
        ("its time / naive time at as many draws", f"{short_seconds / (exact_seconds * ratio / 2):.3f}"),
    ]
