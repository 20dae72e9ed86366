"""Counts the bytes of tensors that a piece of work holds at once, on any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakBytes(TorchDispatchMode):
    """Watches what is created inside a `with` block: `alive` is what is there now, `peak` the most that ever was.

    What existed before is not counted, nor what a kernel allocates for itself while it runs.
    """

    def __init__(self):
        super().__init__()
        self.peak = 0
        self._held = 0  # what is alive, and what has died since it was last looked through
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    @property
    def alive(self) -> int:
        """Bytes of what was created inside the block and is still there."""
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self._held = sum(size for _, size in self._alive.values())
        return self._held

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        output = func(*args, **(kwargs or {}))
        given = {_address(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for value in tree_leaves(output):
            # While its weak reference is kept, no other storage gets its address.
            if isinstance(value, Tensor) and (address := _address(value)) not in given and address not in self._alive:
                storage = value.untyped_storage()
                self._alive[address] = (StorageWeakRef(storage), storage.nbytes())
                self._held += storage.nbytes()
        # Looking through all that is alive is slow: only where it might be more than ever before.
        if self._held > self.peak:
            self.peak = max(self.peak, self.alive)
        return output


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most bytes of tensors that `work` holds at once beyond what there was before.

    Args:
        work (`Callable`): What is run.

    Returns:
        `int`: The bytes.
    """
    with PeakBytes() as watched:
        work()
    return watched.peak


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
