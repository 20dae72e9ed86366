"""Leaves a model and the process exactly as they were found, whatever ends the work in between."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


# Buffers that a forward pass may rewrite (rotary frequencies, running statistics) are small; a quantized model keeps
# its weights in buffers too, and copying those would double its memory.
_LARGEST_BUFFER_COPIED = 1 << 20


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Runs the body with `model` in evaluation mode; restores modes, buffers and random states afterwards.

    Restoring happens on every way out: normal end, exception, `KeyboardInterrupt`. Parameters are not copied: nothing
    in the diagnosis writes to them.

    Args:
        model (`nn.Module`): The model that the body runs.
    """
    training = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone() if 0 < buffer.numel() <= _LARGEST_BUFFER_COPIED else None)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    device_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    model.eval()
    try:
        yield
    finally:
        for module, mode in training:
            module.training = mode
        for module, name, buffer, copy in buffers:
            module._buffers[name] = buffer
            if copy is not None and not torch.equal(buffer, copy):
                buffer.data.copy_(copy)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if device_states:
            torch.cuda.set_rng_state_all(device_states)
