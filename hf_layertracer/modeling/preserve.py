"""Leaves a model and the process exactly as they were found, whatever ends the work in between."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import LayerTracerError
from ..logs import get_logger
from .devices import random_states, set_random_states
from .weights import Fingerprints, KeptOriginals, can_be_watched


logger = get_logger(__name__)

# Buffers that a forward pass may rewrite (rotary frequencies, running statistics) are small; a quantized model keeps
# its weights in buffers too, and copying those would double its memory.
_LARGEST_BUFFER_COPIED = 1 << 20


# A forward pass may change attributes too: BigBird turns to full attention at its first short prompt, for good, and
# recurrent models keep their last state.
_ATTRIBUTES = (str, int, float, bool, type(None), Tensor)


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Runs the body with `model` in evaluation mode and not compiled; restores all that it had been afterwards.

    Every forward pass inside the body starts from the state in which the model was found, so that none depends on those
    before it. Modes, submodules, attributes, the configuration, buffers and random states are restored on every way out:
    normal end, exception, `KeyboardInterrupt`. Parameters are not copied, except for those that the model's first pass
    writes to (RWKV divides some of them in evaluation mode, for good); these are put back. That nothing else has changed
    is checked.

    Args:
        model (`nn.Module`): The model that the body runs.

    Raises:
        LayerTracerError: The model has changed its own weights in a way that cannot be undone.
    """
    modules = list(model.modules())
    found, fingerprints = _State(modules), Fingerprints(model)
    # Layers are answered from outside here, which a graph that was compiled with their own forward does not see.
    compiled = [(module, module._compiled_call_impl) for module in modules if module._compiled_call_impl is not None]
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    device_states = random_states()
    model.eval()
    for module, _ in compiled:
        module._compiled_call_impl = None
    originals, start, passes = KeptOriginals(model), _State(modules), 0
    with ExitStack() as first_pass:

        def begin(*_: Any) -> None:
            nonlocal passes
            if passes:
                originals.put_back()
                start.restore()
            elif can_be_watched(model):
                first_pass.enter_context(originals)
            passes += 1

        handles = [
            model.register_forward_pre_hook(begin, prepend=True),
            model.register_forward_hook(lambda *_: first_pass.close(), always_call=True),
        ]
        try:
            yield
        finally:
            first_pass.close()
            for handle in handles:
                handle.remove()
            originals.put_back()
            for module, call in compiled:
                module._compiled_call_impl = call
            found.restore()
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            torch.set_rng_state(torch_state)
            set_random_states(device_states)
            changed = fingerprints.changed()
            if changed:
                logger.error(f"The model has changed its own weights: {', '.join(changed[:4])}. Load it anew.")
    if changed:
        raise LayerTracerError(
            f"{type(model).__name__} changes its own weights when it runs ({', '.join(changed[:4])}, ...): it cannot be "
            "diagnosed, and has to be loaded anew."
        )


class _State:
    """What a forward pass may change of modules, other than their parameters."""

    def __init__(self, modules: list[nn.Module]):
        self.buffers = [
            (module, name, buffer, buffer.clone() if 0 < buffer.numel() <= _LARGEST_BUFFER_COPIED else None)
            for module in modules
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        self.submodules = [(module, dict(module._modules)) for module in modules]
        holders = [*modules, *({id(m.config): m.config for m in modules if hasattr(m, "config")}.values())]
        self.attributes = [
            (holder, {k: v for k, v in vars(holder).items() if isinstance(v, _ATTRIBUTES)}) for holder in holders
        ]

    def restore(self) -> None:
        for module, before in self.submodules:
            if module._modules != before:
                module._modules.clear()
                module._modules.update(before)
        for holder, before in self.attributes:
            vars(holder).update(before)
        for module, name, buffer, copy in self.buffers:
            module._buffers[name] = buffer
            if copy is not None and not torch.equal(buffer, copy):
                buffer.data.copy_(copy)
