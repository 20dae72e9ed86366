"""Layer Sensitivity of the demo model: how long a diagnosis takes against a competent loop of hooks."""

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
from hf_layertracer.modeling import find_parts
from hf_layertracer.probes.encoding import EncodedProbe, encode_probes, equal_length_batches


REPEATS = 2
NAIVE_PROBES = 18  # of 144: the naive loop takes the longest, and each of its draws as long as the others
_BATCH_TOKENS = 1024  # as in the package, so that the ways differ in what they compute and not in how it is batched


def naive_sensitivity(model: nn.Module, probes: list[EncodedProbe], repeats: int) -> np.ndarray:
    """A hook that masks one layer's output, for every layer, in batches and with the head at the last position alone.

    Args:
        model (`nn.Module`): The model.
        probes (`list[EncodedProbe]`): The probes.
        repeats (`int`): Masks per probe.

    Returns:
        `np.ndarray`: Divergences in bits, of shape `(layers, probes, repeats)`.
    """
    layers, width = find_parts(model).layers, model.config.hidden_size
    values = np.empty((len(layers), len(probes), repeats))

    def logits(ids: torch.Tensor) -> torch.Tensor:
        return model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1]

    for batch in equal_length_batches([len(probe.input_ids) for probe in probes], 1 << 30):
        ids = torch.tensor([probes[index].input_ids for index in batch])
        pairs = [(row, repeat) for repeat in range(repeats) for row in range(len(batch))]
        size = max(1, _BATCH_TOKENS // ids.shape[1])
        with torch.no_grad():
            clean = logits(ids)
            for start in range(0, len(pairs), size):
                chunk = pairs[start : start + size]
                rows = [row for row, _ in chunk]
                draws = [repeat * len(probes) + batch[row] for row, repeat in chunk]
                masks = torch.stack([dimension_mask(width, 0.3, 0, draw) for draw in draws])[:, None]
                for index, layer in enumerate(layers):
                    hook = layer.register_forward_hook(lambda _m, _i, out, masks=masks: out.masked_fill(masks, 0))
                    perturbed = logits(ids[rows])
                    hook.remove()
                    for (row, repeat), value in zip(chunk, jensen_shannon(clean[rows], perturbed), strict=True):
                        values[index, batch[row], repeat] = value
    return values


def run() -> list[tuple[str, str]]:
    """Times both on the same probes and draws.

    Returns:
        `list[tuple[str, str]]`: Rows of the results.
    """
    folder = demo_model()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    probes = load_probes()
    some = probes[:: len(probes) // NAIVE_PROBES]
    encoded = encode_probes(some, tokenizer)
    config = DiagnosisConfig(perturbation="mask", repeats=REPEATS)
    diagnose(model, some[:4], tokenizer=tokenizer, config=config)  # warm up
    seconds: dict[str, float] = {"naive": 0.0, "replay": 0.0}
    for _ in range(2):  # the two alternate
        start = time.perf_counter()
        naive = naive_sensitivity(model, encoded, REPEATS)
        seconds["naive"] += time.perf_counter() - start
        report = diagnose(model, some, tokenizer=tokenizer, config=config)
        seconds["replay"] += sum(spent for part, spent in report.first.durations.items() if part != "lens")
    errors = naive.mean(2).std(1, ddof=1) / len(some) ** 0.5
    gain = float(np.mean(errors**2) / np.mean(np.square(report.sensitivity.stderr)))
    return [
        ("naive time / diagnosis time, same probes and masks", f"{seconds['naive'] / seconds['replay']:.2f}"),
        ("variance of its means as independent draws / that of the corrected means", f"{gain:.2f}"),
    ]
