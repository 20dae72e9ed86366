"""Leaves a model and the process exactly as they were found, whatever ends the work in between."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from .devices import random_states, set_random_states


# Buffers that a forward pass may rewrite (rotary frequencies, running statistics) are small; a quantized model keeps
# its weights in buffers too, and copying those would double its memory.
_LARGEST_BUFFER_COPIED = 1 << 20


# A forward pass may change attributes too: BigBird turns to full attention at its first short prompt, for good, and
# recurrent models keep their last state.
_ATTRIBUTES = (str, int, float, bool, type(None), Tensor)


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Runs the body with `model` in evaluation mode and not compiled; restores all that it had been afterwards.

    Modes, submodules, attributes, the configuration, buffers and random states are restored on every way out:
    normal end, exception, `KeyboardInterrupt`. Parameters are not copied: nothing in the diagnosis writes to them.

    Args:
        model (`nn.Module`): The model that the body runs.
    """
    modules = list(model.modules())
    buffers = [
        (module, name, buffer, buffer.clone() if 0 < buffer.numel() <= _LARGEST_BUFFER_COPIED else None)
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    submodules = [(module, dict(module._modules)) for module in modules]
    holders = [*modules, *({id(m.config): m.config for m in modules if hasattr(m, "config")}.values())]
    attributes = [
        (holder, {k: v for k, v in vars(holder).items() if isinstance(v, _ATTRIBUTES)}) for holder in holders
    ]
    # Layers are answered from outside here, which a graph that was compiled with their own forward does not see.
    compiled = [(module, module._compiled_call_impl) for module in modules if module._compiled_call_impl is not None]
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    device_states = random_states()
    model.eval()
    for module, _ in compiled:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in compiled:
            module._compiled_call_impl = call
        for module, before in submodules:
            module._modules.clear()
            module._modules.update(before)
        for holder, before in attributes:
            vars(holder).update(before)
        for module, name, buffer, copy in buffers:
            module._buffers[name] = buffer
            if copy is not None and not torch.equal(buffer, copy):
                buffer.data.copy_(copy)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        set_random_states(device_states)
