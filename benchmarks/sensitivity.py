"""Layer Sensitivity of the demo model: how long a diagnosis takes against a competent loop of hooks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_layertracer import DiagnosisConfig, diagnose, load_probes
from hf_layertracer.demo.model import demo_model
from hf_layertracer.diagnosis.divergence import jensen_shannon
from hf_layertracer.diagnosis.perturbations.mask import dimension_mask
from hf_layertracer.diagnosis.quick import QUICK_PROBES, quick_look
from hf_layertracer.modeling import find_parts
from hf_layertracer.probes.encoding import EncodedProbe, encode_probes, equal_length_batches


REPEATS = 2
PROBES = 12  # of 144: the loop takes the longest, and each of its draws as long as the others
_DEFAULT_DRAWS = 288  # of 144 probes
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
    """Times the loop, the diagnosis and the quick look by the processor time that they take, on a busy machine too.

    Returns:
        `list[tuple[str, str]]`: Rows of the results.
    """
    folder = demo_model()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    probes = load_probes()
    some = probes[:: len(probes) // PROBES]
    encoded = encode_probes(some, tokenizer)
    settings = {"perturbation": "mask", "repeats": REPEATS}
    quick = quick_look(DiagnosisConfig(), 30)
    spent, reports = {}, {}
    diagnose(model, some[:1], tokenizer=tokenizer, config=quick)  # warm up
    naive, spent["loop"] = _timed(lambda: naive_sensitivity(model, encoded, REPEATS))
    for name, config in {
        "replay": DiagnosisConfig(**settings, compute_dtype="model"),
        "auto": DiagnosisConfig(**settings),
        "quick": quick,
    }.items():
        reports[name], spent[name] = _timed(
            lambda config=config: diagnose(model, some, tokenizer=tokenizer, config=config)
        )
        if name != "quick":  # of lens and context, the loop knows nothing
            parts = reports[name].first.durations
            spent[name] *= 1 - (parts["lens"] + parts["context"]) / sum(parts.values())
    model.bfloat16()
    _, spent["quick, bfloat16"] = _timed(lambda: diagnose(model, some, tokenizer=tokenizer, config=quick))
    own, narrow = (reports[name].sensitivity for name in ("replay", "auto"))
    over_probes = naive.mean(2).std(1, ddof=1) / len(some) ** 0.5
    gain = float(np.mean(over_probes**2) / np.mean(np.square(own.stderr)))
    parts = reports["auto"].first.durations
    share = parts["verification"] / (sum(parts.values()) - parts["lens"] - parts["context"])
    apart = float(np.abs(np.subtract(own.mean, narrow.mean)).max())
    draws = len(some) * REPEATS
    return [
        (f"loop / replay, {draws} draws each", f"{spent['loop'] / spent['replay']:.2f}"),
        ("loop / replay with `compute_dtype` auto", f"{spent['loop'] / spent['auto']:.2f}"),
        ("squared standard error over probes / from designs, corrected", f"{gain:.2f}"),
        ("loop / diagnosis, to the same standard error", f"{gain * spent['loop'] / spent['auto']:.1f}"),
        (
            f"loop over the {_DEFAULT_DRAWS} draws of the default / quick look of {QUICK_PROBES} probes",
            f"{spent['loop'] * _DEFAULT_DRAWS / draws / (spent['quick'] * QUICK_PROBES / len(some)):.0f}",
        ),
        ("quick look, weights in float32 / in bfloat16", f"{spent['quick'] / spent['quick, bfloat16']:.2f}"),
        ("share of verification in the time of a diagnosis", f"{share:.2f}"),
        ("largest difference of a mean in bfloat16, bits", f"{apart:.4f}"),
    ]


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the seconds of all processors that it took."""
    start = time.process_time()
    return work(), time.process_time() - start
