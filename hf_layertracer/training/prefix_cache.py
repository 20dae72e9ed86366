"""The output of the frozen layers at the bottom, kept on disk: from the second epoch on, they need not run.

A row of a batch is known by a hash of all that the frozen layers see of it and of these layers themselves: weights, data
type, versions of torch and transformers. What is read is therefore what would be computed, in a later run too. What a
hash cannot show is checked: layers that draw random numbers are refused, weights are watched, and the first batch that is
there as a whole is computed all the same and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import Trainer

from ..diagnosis.patching import hidden_input, hidden_of
from ..distributed import is_main_process
from ..errors import LayerTracerError
from ..logs import get_logger
from ..modeling import ModelParts
from ..modeling.devices import random_states, set_random_states
from ..planning.config import LayerTracerConfig
from ..text import gibibytes, parse_bytes
from .prefix_keys import row_keys, space_of, weights_below
from .row_store import RowStore, same_values


logger = get_logger(__name__)


class CachedPrefix:
    """Keeps what comes out of frozen layers, and lets them rest where it is there for a whole batch.

    Args:
        model (`nn.Module`): The model as the trainer calls it.
        layers (`Sequence[nn.Module]`): The frozen layers at the bottom.
        below (`Sequence[Tensor]`): Weights of these layers and of all else that their output depends on.
        space (`str`): Hash of the weights and of how the layers are run.
        store ([`RowStore`]): Where to keep it.
        rows (`int`, *optional*): Rows of the training data, to say what they will take.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[nn.Module],
        below: Sequence[Tensor],
        space: str,
        store: RowStore,
        rows: int | None = None,
    ):
        self._model, self._layers, self._below = model, layers, below
        self._space, self._store, self._rows = space, store, rows
        self.read = self.computed = 0
        self.problem: str | None = None
        self._is_verified = self._is_checking = self._is_told = False
        self._bare = [True] * len(layers)  # whether a layer returns its hidden state alone, or in a tuple
        self._keys: list[str] | None = None
        self._found: Tensor | None = None  # what is on disk for this batch
        self._made: Tensor | None = None  # what was computed for it
        self._random: list[Tensor] = []
        self._stamp = self._versions()
        self._own: list[Any] = []
        self._handles: list[RemovableHandle] = []

    def install(self) -> None:
        """Puts the cache in place."""
        self._handles = [
            self._model.register_forward_pre_hook(self._begin, with_kwargs=True),
            self._model.register_forward_hook(self._end, with_kwargs=True),
        ]
        self._own = [vars(layer).get("forward") for layer in self._layers]  # accelerate's, if any
        for index, layer in enumerate(self._layers):
            vars(layer)["forward"] = self._forward(index, layer.forward)

    def remove(self) -> None:
        """Leaves the model as it was."""
        while self._handles:
            self._handles.pop().remove()
        for layer, own in zip(self._layers, self._own, strict=True):
            vars(layer).pop("forward", None)
            if own is not None:
                vars(layer)["forward"] = own
        self._own = []

    @property
    def summary(self) -> str:
        """What came of it, in one line."""
        said = f"Of the frozen layers' output, {self.read} rows were read from disk and {self.computed} were computed."
        if self.problem is not None:
            return f"{said} It was not kept on because {self.problem}."
        if not self.read and self._rows and self.computed > self._rows:
            return f"{said} No row came twice: their length, packing or content changes from epoch to epoch."
        return said

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._is_checking:
            return
        self._keys = self._found = self._made = None
        if self.problem is not None or not model.training:
            return
        if self._versions() != self._stamp:
            self._give_up("the weights of the frozen layers changed")
            return
        self._keys = row_keys(self._space, {**{str(place): value for place, value in enumerate(args)}, **kwargs})
        if self._keys is None:
            self._give_up("a batch is more than rows of token ids")
            return
        rows = [row for key in self._keys if (row := self._store.get(key)) is not None]
        if len(rows) == len(self._keys) and len({row.shape for row in rows}) == 1:
            self._found = torch.stack(rows).to(self._below[0].device)
        self._random = _random_state()

    def _forward(self, index: int, own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._found is not None and (self._is_verified or self._is_checking):
                last = index == len(self._layers) - 1
                hidden = self._found if last else hidden_input(args, kwargs)
                return hidden if self._bare[index] else (hidden,)
            output = own(*args, **kwargs)
            if self._keys is not None:
                self._see(index, output)
            return output

        return forward

    def _see(self, index: int, output: Any) -> None:
        """Looks at what a layer has computed."""
        self._bare[index] = isinstance(output, Tensor)
        if not isinstance(output, Tensor) and not (isinstance(output, tuple) and _is_alone(output)):
            self._give_up("the layers hand on more than the hidden state")
        elif index == len(self._layers) - 1:
            self._made = hidden_of(output).detach()
            if not _same_state(self._random, _random_state()):
                self._give_up("the frozen layers draw random numbers (dropout)", refuse=not self.computed)

    def _end(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self._is_checking or self._keys is None:
            return
        keys, self._keys = self._keys, None
        if self._found is not None and self._is_verified:
            self.read += len(keys)
            return
        self.computed += len(keys)
        if self._made is None or self._made.shape[0] != len(keys):
            self._give_up("their output is not one tensor with a row for each row of the batch")
        elif self._found is None:
            self._keep(keys, self._made.cpu())
        elif same_values(self._made, self._found) and self._is_same_at_rest(model, args, kwargs, output):
            self._is_verified = True
        else:
            self._give_up("what is on disk does not give what the layers give")

    def _keep(self, keys: list[str], made: Tensor) -> None:
        if not self._is_told and is_main_process():
            size = f", {gibibytes(self._rows * made[0].nbytes)} for {self._rows} rows" if self._rows else ""
            logger.warning(
                f"The output of the {len(self._layers)} frozen layers at the bottom is kept on disk: "
                f"{gibibytes(made[0].nbytes)} a row{size}; there is room for {gibibytes(self._store.left)}."
            )
        self._is_told = True
        for key, row in zip(keys, made, strict=True):
            self._store.put(key, row)

    def _is_same_at_rest(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> bool:
        """Whether the whole model gives the same when the frozen layers rest: nothing else may depend on them."""
        after = _random_state()
        _set_random_state(self._random)
        self._is_checking = True
        try:
            with torch.no_grad():
                again = model(*args, **kwargs)
        finally:
            self._is_checking = False
            _set_random_state(after)
        return same_values(_first(output), _first(again))

    def _give_up(self, problem: str, refuse: bool = False) -> None:
        if refuse:
            self.remove()
            raise LayerTracerError(
                f"prefix_cache cannot be used: {problem}. Switch that off, or leave prefix_cache out."
            )
        self.problem, self._keys, self._found = problem, None, None
        logger.warning(f"The output of the frozen layers is no longer kept on disk: {problem}. Training goes on.")

    def _versions(self) -> list[tuple[int, int]]:
        return [(tensor.data_ptr(), tensor._version) for tensor in self._below]


def cached_prefix(trainer: Trainer, config: LayerTracerConfig, parts: ModelParts, depth: int) -> CachedPrefix:
    """The cache that the settings of a run ask for.

    Args:
        trainer ([`~transformers.Trainer`]): The trainer, at the beginning of training.
        config ([`LayerTracerConfig`]): The settings; `prefix_cache` names a folder.
        parts ([`ModelParts`]): The layers of its model.
        depth (`int`): How many layers at the bottom are frozen, with all that lies below them.

    Returns:
        [`CachedPrefix`]: The cache, not yet in place.

    Raises:
        LayerTracerError: It cannot be right, or would keep nothing, in a run like this.
    """
    args = trainer.args
    sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled or trainer.is_distributed_loading_by_transformers
    reasons = {
        "torch_compile=True builds the layers into one graph": args.torch_compile,
        "neftune_noise_alpha makes every batch another one": args.neftune_noise_alpha is not None,
        "the launcher shards the frozen layers": sharded,
        "DataParallel copies the model at each step": args.n_gpu > 1,
        "the strategy changes what trains": trainer._layertracer.tracer.changes is not None,
    }
    for reason, holds in reasons.items():
        if holds:
            raise LayerTracerError(f"prefix_cache cannot be used: {reason}.")
    below = weights_below(trainer.model, parts, depth)
    limit = None if config.prefix_cache_size is None else parse_bytes(config.prefix_cache_size, "prefix_cache_size")
    store = RowStore(Path(config.prefix_cache), limit, args.world_size)
    space = space_of(parts, depth, below, trainer.accelerator.mixed_precision)
    data = trainer.train_dataset
    rows = len(data) if hasattr(data, "__len__") and not isinstance(data, dict) else None
    return CachedPrefix(trainer.model, parts.layers[:depth], below, space, store, rows)


def _is_alone(output: tuple[Any, ...]) -> bool:
    """Whether a layer's tuple holds its hidden state and nothing else."""
    return isinstance(output[0], Tensor) and all(value is None for value in output[1:])


def _first(output: Any) -> Tensor:
    """The loss of a model's output, or its first tensor."""
    values = output.values() if isinstance(output, dict) else output
    return next(value for value in values if isinstance(value, Tensor))


def _random_state() -> list[Tensor]:
    return [torch.get_rng_state(), *random_states()]


def _set_random_state(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    set_random_states(states[1:])


def _same_state(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(*pair) for pair in zip(one, other, strict=True))
