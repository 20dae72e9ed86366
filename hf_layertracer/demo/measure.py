"""How fast this machine is, measured in its own process: `python -m hf_layertracer.demo.measure MODEL`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from ..modeling.devices import default_device

# What each process of the demo imports, so that its start is measured too.
from ..trials import unit  # noqa: F401
from .budget import BLOCK_TOKENS, PROBE_TOKENS


def measure(folder: str) -> dict[str, float | str]:
    """Times the first steps: training in float32 and bfloat16, the optimizer, and reading in both.

    Args:
        folder (`str`): The model.

    Returns:
        `dict[str, float | str]`: The fields of [`Speed`], and as `inside` the seconds that measuring took; `start` is left
            for the caller, who sees when the process began.
    """
    device = default_device()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
    began = time.perf_counter()
    ids = torch.randint(0, model.config.vocab_size, (1, BLOCK_TOKENS), device=device)
    _read(model, ids[:, :PROBE_TOKENS])  # the first pass sets libraries up
    train = {name: _seconds(partial(_train, model, ids, name)) for name in ("float32", "bfloat16")}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    optimizer.step()  # the first one makes the state
    update = _seconds(optimizer.step)
    del optimizer
    model.zero_grad()
    read = _seconds(lambda: _read(model, ids))
    probes = ids.view(-1, PROBE_TOKENS)
    asked = {}
    for name in ("float32", "bfloat16"):
        model.to(getattr(torch, name))
        _read(model, probes[:1])
        asked[name] = _seconds(lambda: _read(model, probes[:1])), _seconds(lambda: _read(model, probes))
    better, faster = min(train, key=train.__getitem__), min(asked, key=lambda name: asked[name][1])
    alone, together = asked[faster]
    return {
        "train": train[better],
        "update": update,
        "read": read,
        "alone": alone,
        "ask": max(0.0, together - alone) / (len(probes) - 1),
        "train_dtype": better,
        "ask_dtype": faster,
        "inside": time.perf_counter() - began,
    }


def _train(model: nn.Module, ids: Tensor, dtype: str) -> None:
    with torch.autocast(ids.device.type, torch.bfloat16) if dtype == "bfloat16" else nullcontext():
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()


@torch.no_grad()
def _read(model: nn.Module, ids: Tensor) -> None:
    model(input_ids=ids).logits.float().log_softmax(-1)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print(json.dumps(measure(sys.argv[1])))
