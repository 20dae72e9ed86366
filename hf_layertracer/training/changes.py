"""A strategy that changes what trains: when it is asked again, what it is told, and what a checkpoint holds of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from transformers import TrainerState

from ..distributed import from_main_process
from ..errors import LayerTracerError
from ..logs import get_logger
from ..modeling import find_parts
from ..modeling.facts import model_facts
from ..planning import AppliedPlan, strategy_named
from ..planning.fitting import MemoryOfPlans, split_limit
from ..planning.plan import change_plan
from ..planning.strategies import ChangingOptions, Moment
from ..records import LayerPlan, PlanRecord
from ..report import LayerTracerReport
from ..text import compact_ranges
from .allocation import Allocation
from .gradients import GradientNorms, scale_of_gradients
from .motion import MotionCheck


logger = get_logger(__name__)

_STATE = "layertracer"  # its name in the trainer's state


class Changes:
    """Changes the plan of a traced run, step by step.

    Args:
        report ([`LayerTracerReport`]): The run's report; its plans are the history.
        measure (`Callable[[nn.Module, str | None, int], list[float]]`):
            Measures the layers' sensitivity now, given a perturbation and a number of probes.
        memory ([`MemoryOfPlans`], *optional*): What a limit on memory is compared with.
    """

    def __init__(
        self,
        report: LayerTracerReport,
        measure: Callable[[nn.Module, str | None, int], list[float]],
        memory: MemoryOfPlans | None = None,
    ):
        self._report, self._measure, self._memory = report, measure, memory
        self._strategy = strategy_named(report.plan.strategy)
        self._options = options_of(report.plan)
        self._norms = GradientNorms(report.num_layers, report.plan.layers_path)
        self._has_norms = False  # of the step that is being made
        self._motion = MotionCheck()
        self._history: list[dict[str, Any]] = []
        self._allocation: Allocation | None = None
        self._optimizer: torch.optim.Optimizer | None = None

    def take(self, model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path | None) -> AppliedPlan:
        """Puts the plan into force that holds at this step, on the optimizer that holds all that may ever train.

        After the model is wrapped, which looks at all that may train, and before the optimizer's state is loaded.

        Args:
            model (`nn.Module`): The model as the trainer has it.
            optimizer (`torch.optim.Optimizer`): Its optimizer, out of accelerate's wrapper.
            checkpoint (`Path`, *optional*): The checkpoint that the run goes on from.

        Returns:
            [`AppliedPlan`]: The plan in force.

        Raises:
            LayerTracerError: Optimizer or checkpoint do not fit.
        """
        # A trainer may train several times. Nothing of an earlier run decides what trains in this one.
        self._norms = GradientNorms(self._report.num_layers, self._report.plan.layers_path)
        self._motion, self._has_norms = MotionCheck(), False
        goes_on = self._allocation is not None and self._optimizer is optimizer
        if not goes_on:
            self._optimizer = optimizer
            self._allocation = Allocation(
                model,
                optimizer,
                warmup_steps=self._options.thaw_warmup_steps,
                keep_state=self._options.keep_optimizer_state,
            )
        state = saved_state(checkpoint) if checkpoint is not None else None
        self._report.plans = self._report.plans[:1]
        if state is not None:
            self._report.plans = [PlanRecord(**record) for record in state["plans"]]
            self._norms.load(state["gradients"])
        else:
            self._report.plans[0].seen = []
        self._history = []
        self._allocation.thawed_at = state["thawed_at"] if state is not None else {}
        applied = self._allocation.put_into_force(self._report.plan)
        if goes_on:
            self._allocation.forget_kept()
        self._motion.ask()
        return applied

    def wrap(self, wrapped: nn.Module) -> None:
        """Makes the wrapped model known, and checks that all agree after what was loaded.

        Args:
            wrapped (`nn.Module`): The model as it is run.
        """
        assert self._allocation is not None
        self._allocation.wrap(wrapped)
        self._allocation.check()

    def begin(self, model: nn.Module) -> None:
        """Before the first step that is made: measures what is compared with later, on the same probes.

        The report's own diagnosis asked all of them. Other probes tell other layers apart: a change from all to some would
        be taken for one of the model.

        Args:
            model (`nn.Module`): The model, wrapped or not.
        """
        first = self._report.plans[0]
        if self._strategy.change.watches == "sensitivity" and not first.seen:
            first.seen = self._scores(model)
            self._history = []

    def is_due(self, step: int) -> bool:
        """Whether the strategy is asked before the step after this many."""
        return step > 0 and step % self._options.change_steps == 0

    def change(self, model: nn.Module, step: int, total_steps: int) -> AppliedPlan | None:
        """Asks the strategy again, and puts into force what it says.

        Args:
            model (`nn.Module`): The model, wrapped or not.
            step (`int`): Optimizer steps made so far.
            total_steps (`int`): Optimizer steps of the run.

        Returns:
            [`AppliedPlan`] or `None`: The plan in force, if it is another one.
        """
        assert self._allocation is not None
        plan, scores = self._report.plan, self._scores(model)
        moment = Moment(step, total_steps, frozenset(plan.trained_layers), scores, self._report.plans[0].seen)
        facts = model_facts(find_parts(model, plan.layers_path))
        # Processes may round differently, and have to change to the same plan at the same step.
        changed = from_main_process(change_plan(facts, plan, moment, self._report, self._memory))
        if changed is None:
            return None
        self._report.set_plan(changed, step)
        self._report.plans[-1].seen = scores
        applied = self._allocation.put_into_force(changed, step)
        self._motion.ask()
        logger.info(f"From step {step} on, layers {compact_ranges(changed.trained_layers)} train. {changed.reason}")
        return applied

    def before_clipping(self, model: nn.Module, scaler: GradScaler | None = None) -> None:
        """Once the gradients of a step are complete: clipping makes shares of one total of their norms.

        Args:
            model (`nn.Module`): The model, wrapped or not.
            scaler (`torch.amp.GradScaler`, *optional*): What scales the loss.
        """
        assert self._optimizer is not None
        if self._strategy.change.watches == "gradients":
            self._norms.add(model, scale_of_gradients(scaler, self._optimizer))
            self._has_norms = True

    def before_update(self, model: nn.Module, step: int, scaler: GradScaler | None = None) -> None:
        """Before an optimizer step, with the gradients at hand.

        Where nothing was clipped, or a trainer clips in a way of its own that does not tell, the norms are taken here.

        Args:
            model (`nn.Module`): The model, wrapped or not.
            step (`int`): Optimizer steps made so far.
            scaler (`torch.amp.GradScaler`, *optional*): What scales the loss; without clipping, gradients still are so.
        """
        assert self._allocation is not None
        assert self._optimizer is not None
        if not self._has_norms:
            self.before_clipping(model, scaler)
        self._has_norms = False
        self._allocation.before_update(step)
        scale = scale_of_gradients(scaler, self._optimizer)
        self._motion.before_update(model, self._optimizer, self._allocation.shares, scale)

    def after_update(self, model: nn.Module, step: int, *, skipped: bool) -> None:
        """After an optimizer step, which mixed precision may have skipped."""
        assert self._allocation is not None
        assert self._optimizer is not None
        self._allocation.after_update()
        if not skipped:
            self._motion.after_update(model, self._optimizer, step)

    def notes_at_end(self) -> list[str]:
        """What a reader of the report must know of how the run went."""
        summary = self._motion.summary()
        return [] if summary is None else [summary]

    def remember(self, state: TrainerState) -> None:
        """Puts into the trainer's state what the next checkpoint has to hold."""
        assert self._allocation is not None
        self._history += [record.model_dump(mode="json") for record in self._report.plans[len(self._history) :]]
        state.stateful_callbacks[_STATE] = {
            "plans": self._history,
            "thawed_at": self._allocation.thawed_at,
            "gradients": self._norms.state(),
        }

    def _scores(self, model: nn.Module) -> list[float | None]:
        watches = self._strategy.change.watches
        if watches == "gradients":
            return self._norms.scores()
        if watches == "sensitivity":
            return list(self._measure(model, self._options.measure, self._options.change_probes))
        return []


def options_of(plan: LayerPlan) -> ChangingOptions | None:
    """The options of a plan whose strategy changes during training; `None` where it does not.

    Args:
        plan ([`LayerPlan`]): The plan.
    """
    strategy = strategy_named(plan.strategy)
    if strategy.change is None:
        return None
    options = {name: value for name, value in plan.options.items() if name in strategy.option_names}
    return strategy.check_options(split_limit(strategy, options)[0])


def saved_state(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint holds of the allocation.

    Args:
        checkpoint (`Path`): Its folder.

    Returns:
        `dict[str, Any]`: As [`Changes.remember`] put it there.

    Raises:
        LayerTracerError: It holds nothing.
    """
    path = checkpoint / "trainer_state.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["stateful_callbacks"][_STATE]
    except (OSError, ValueError, KeyError) as error:
        raise LayerTracerError(
            f"{path} does not say which layers trained when: the run cannot go on from there. Start a new one from its "
            "weights."
        ) from error
