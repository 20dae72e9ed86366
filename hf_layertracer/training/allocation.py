"""What trains, changed while a run goes on: gradient flags, gradients, optimizer and wrapper always agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import LayerTracerError
from ..planning import AppliedPlan, apply_plan
from ..records import LayerPlan
from .reducer import watch_again


_KEPT = "layertracer_kept"


class Allocation:
    """Puts one plan after another into force on a model that is being trained.

    Parameters that a plan freezes lose their gradient and their state in the optimizer, which is freed or kept on the CPU.
    Those that it thaws go back into the group of the optimizer that they were in at first, with fresh (or the kept) state,
    and their updates rise to full size over `warmup_steps`: an update of a gradient method is as long as its learning
    rate, so a fraction of it is a step with that fraction of the rate. Groups stay as they are, and so does the scheduler.

    Args:
        model (`nn.Module`): The model as the trainer has it, before or after it is wrapped.
        optimizer (`torch.optim.Optimizer`): Holds every parameter that may train.
        warmup_steps (`int`): Steps over which newly trained parameters rise to their learning rate.
        keep_state (`bool`): Keep the state of frozen parameters on the CPU.

    Raises:
        LayerTracerError: The optimizer lacks a parameter that may train, or averages over all steps.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, warmup_steps: int, keep_state: bool):
        self._model, self._optimizer = model, optimizer
        self._warmup_steps, self._keep_state = warmup_steps, keep_state
        self._wrapped: nn.Module | None = None
        self._kept: dict[str, dict[str, Any]] = {}
        self._partial: dict[str, tuple[torch.Tensor, float]] = {}
        self.thawed_at: dict[str, int] = {}
        names = {parameter: name for name, parameter in model.named_parameters()}
        self._homes = {
            names[parameter]: home
            for home, group in enumerate(optimizer.param_groups)
            for parameter in group["params"]
            if parameter in names
        }
        missing = [name for name, p in model.named_parameters() if p.requires_grad and name not in self._homes]
        if missing:
            raise LayerTracerError(
                f"A strategy that changes during training needs an optimizer that holds every parameter that may train: "
                f"{type(optimizer).__name__} lacks {len(missing)}, such as {missing[0]}."
            )
        # Schedule-free ones count steps for whole groups: fresh state would be taken for old, so that what newly trains
        # makes steps up to thirty times too long; and what is frozen would not be put to its average at the end.
        if any("train_mode" in group for group in optimizer.param_groups):
            raise LayerTracerError(
                f"{type(optimizer).__name__} averages over all steps, whatever trained in them. With a strategy that "
                "changes during training, take another optimizer, such as optim='adamw_torch'."
            )
        if keep_state:
            optimizer.register_state_dict_post_hook(self._save_kept)
            optimizer.register_load_state_dict_pre_hook(self._load_kept)

    def wrap(self, wrapped: nn.Module) -> None:
        """Makes the model known as it is run: DDP has to be told of what changes.

        Args:
            wrapped (`nn.Module`): The wrapped model, or the model itself.
        """
        self._wrapped = wrapped
        self._tell_reducer()

    def forget_kept(self) -> None:
        """Lets go of the state of frozen parameters, which is of an earlier run."""
        self._kept = {}

    def put_into_force(self, plan: LayerPlan, step: int | None = None) -> AppliedPlan:
        """Changes what trains. Between two steps, on every process at the same one.

        Args:
            plan ([`LayerPlan`]): What trains from now on.
            step (`int`, *optional*):
                Optimizer steps made so far, from which newly trained parameters warm up; `None` for a plan that was in
                force before, or that begins the run.

        Returns:
            [`AppliedPlan`]: The plan in force.

        Raises:
            LayerTracerError: The plan does not fit the model; or afterwards, model and optimizer do not agree.
        """
        before = self._trained()
        applied = apply_plan(self._model, plan)
        after = self._trained()
        parameters = dict(self._model.named_parameters())
        for name in self._homes:
            if name not in after:
                self._freeze(name, parameters[name])
                self.thawed_at.pop(name, None)
            elif step is not None and name not in before:
                self.thawed_at[name] = step
                self._restore(name, parameters[name])
        for home, group in enumerate(self._optimizer.param_groups):
            group["params"] = [parameters[name] for name, own in self._homes.items() if own == home and name in after]
        self._tell_reducer()
        self.check()
        return applied

    def check(self) -> None:
        """Compares what requires a gradient with what the optimizer holds.

        Raises:
            LayerTracerError: They do not agree: something else has thawed, frozen or replaced parameters.
        """
        held = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        trained = {parameter for parameter in self._model.parameters() if parameter.requires_grad}
        if len(held) == len(set(held)) and set(held) == trained:
            return
        names = {parameter: name for name, parameter in self._model.named_parameters()}
        twice = {parameter for parameter, times in Counter(held).items() if times > 1}
        wrong = {
            "require a gradient and are not in the optimizer": trained - set(held),
            "are in the optimizer and are frozen, or no parameters of the model": set(held) - trained,
            "are in the optimizer twice": twice,
        }
        what = [
            f"{len(parameters)} {problem} ({names.get(next(iter(parameters)), 'unnamed')})"
            for problem, parameters in wrong.items()
            if parameters
        ]
        raise LayerTracerError(f"Model and optimizer do not agree on what trains: {'; '.join(what)}.")

    def before_update(self, step: int) -> None:
        """Keeps what warms up as it is before an optimizer step.

        Args:
            step (`int`): Optimizer steps made so far.
        """
        shares = {name: (step - since + 1) / self._warmup_steps for name, since in self._warming(step)}
        parameters = dict(self._model.named_parameters())
        self._partial = {
            name: (parameters[name].detach().clone(), share) for name, share in shares.items() if share < 1
        }

    @property
    def shares(self) -> dict[str, float]:
        """Of what warms up in this step, the share of the learning rate."""
        return {name: share for name, (_, share) in self._partial.items()}

    @torch.no_grad()
    def after_update(self) -> None:
        """Takes back of the step what exceeds the learning rate of what warms up."""
        parameters = dict(self._model.named_parameters())
        for name, (before, share) in self._partial.items():
            parameters[name].sub_(before).mul_(share).add_(before)
        self._partial = {}

    def _warming(self, step: int) -> Iterator[tuple[str, int]]:
        return ((name, since) for name, since in self.thawed_at.items() if step - since < self._warmup_steps)

    def _trained(self) -> set[str]:
        return {name for name, parameter in self._model.named_parameters() if parameter.requires_grad}

    def _freeze(self, name: str, parameter: nn.Parameter) -> None:
        parameter.grad = None
        state = self._optimizer.state.pop(parameter, None)
        if self._keep_state and state:
            self._kept[name] = _moved(state, torch.device("cpu"))

    def _restore(self, name: str, parameter: nn.Parameter) -> None:
        if name not in self._kept:
            return
        state, group = self._kept.pop(name), self._optimizer.param_groups[self._homes[name]]
        moved = _moved(state, parameter.device)
        if "step" in state and not (group.get("fused") or group.get("capturable")):
            moved["step"] = state["step"]  # else Adam counts its steps on the CPU
        self._optimizer.state[parameter] = moved

    def _tell_reducer(self) -> None:
        for module in self._wrapped.modules() if self._wrapped is not None else ():
            if isinstance(module, DistributedDataParallel):
                watch_again(module)
                return

    def _save_kept(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        return {**state_dict, _KEPT: self._kept}

    def _load_kept(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        # Where several processes train, the trainer loads a checkpoint to the device.
        self._kept = {name: _moved(state, torch.device("cpu")) for name, state in state_dict.get(_KEPT, {}).items()}
        return {name: value for name, value in state_dict.items() if name != _KEPT}


def _moved(state: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in state.items()}


def drop_frozen(optimizer: torch.optim.Optimizer) -> None:
    """Takes frozen parameters, and their state, out of an optimizer.

    Args:
        optimizer (`torch.optim.Optimizer`): One that was made before the plan, or that asks nobody what trains.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if not parameter.requires_grad:
                optimizer.state.pop(parameter, None)
        group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
