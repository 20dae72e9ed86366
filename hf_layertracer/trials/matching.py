"""Makes arms comparable: as many parameters train in each arm that freezes something."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ..errors import LayerTracerError
from ..modeling.loading import load_skeleton
from ..planning import make_plan
from .arms import OVERRULES, ArmConfig, with_adapters
from .config import TrialsConfig


if TYPE_CHECKING:
    from torch import nn

    from ..records import LayerPlan
    from ..report import LayerTracerReport


class PreparedArm(BaseModel):
    """An arm with all its options, and what it will cost.

    Args:
        arm (`dict[str, Any]`): The [`ArmConfig`].
        trainable_parameters (`int`): Parameters that train.
        total_parameters (`int`): Parameters of the model that is trained, adapters included.
        flops_per_token (`int`): FLOPs of a training step for one token.
        off_by (`float`, *optional*):
            Trainable parameters, as a relative difference to those that were to be matched; where each seed draws layers,
            of the draw that is furthest off.
        plan (`dict[str, Any]`, *optional*): The [`LayerPlan`]; adapters have none.
    """

    arm: dict[str, Any]
    trainable_parameters: int
    total_parameters: int
    flops_per_token: int
    off_by: float | None = None
    plan: dict[str, Any] | None = None


def prepare_arms(config: TrialsConfig, model: nn.Module, report: LayerTracerReport) -> list[PreparedArm]:
    """Plans every arm once, so that one that cannot be planned is an error before anything is trained.

    With `match: trainable_parameters`, arms that leave out `freeze_ratio` (or the `rank` of LoRA) get the one with which
    they come nearest to the first arm that freezes something. Their embeddings, norm and head train if they do in that
    arm: else layers would be compared with vocabularies, and some draws would train more than others.

    Args:
        config ([`TrialsConfig`]): The config.
        model (`nn.Module`): The model, for strategies that read weights.
        report ([`LayerTracerReport`]): The diagnosis.

    Returns:
        `list[PreparedArm]`: In the order of the config.

    Raises:
        LayerTracerError: An arm has no plan on this model.
    """
    planner = _Planner(config, model, report)
    reference = None
    if config.match == "trainable_parameters":
        partial = [arm for arm in config.arms if not arm.is_lora and not planner.is_full(arm)]
        if not partial:
            raise LayerTracerError("match: no arm freezes layers, so there is nothing to match.")
        reference = planner.plan(partial[0])
    prepared = []
    for arm in config.arms:
        matched = arm if reference is None else planner.matched(arm, reference)
        ready = planner.prepared(matched)
        if reference is not None and (arm.is_lora or not planner.is_full(arm)):
            ready.off_by = planner.off_by(matched, ready, reference)
        prepared.append(ready)
    return prepared


class _Planner:
    def __init__(self, config: TrialsConfig, model: nn.Module, report: LayerTracerReport):
        self._config, self._model, self._report = config, model, report

    def plan(self, arm: ArmConfig) -> LayerPlan:
        try:
            return make_plan(
                self._model,
                arm.strategy,
                report=self._report,
                layers_path=self._report.model.layers_path,
                **arm.tracing().plan_options(),
            )
        except LayerTracerError as error:
            raise LayerTracerError(f"The arm {arm.name!r} cannot be planned: {error}") from error

    def is_full(self, arm: ArmConfig) -> bool:
        return not arm.is_lora and not self.plan(arm).frozen_layers

    def trainable(self, arm: ArmConfig) -> int:
        return self.plan(arm).savings.trainable_parameters

    def matched(self, arm: ArmConfig, reference: LayerPlan) -> ArmConfig:
        target = reference.savings.trainable_parameters
        if arm.is_lora:
            if "rank" in arm.options:
                return arm
            of_rank_one = self._with_adapters(arm, 1).savings.trainable_parameters
            return arm.with_options(rank=max(1, round(target / of_rank_one)))
        if not arm.takes("freeze_ratio"):
            return arm
        if arm.changes_every is None and not set(OVERRULES) & set(arm.options):
            arm = arm.with_options(**{name: getattr(reference, name) for name in OVERRULES})
        layers = self._report.num_layers
        count = _nearest(lambda frozen: self.trainable(_freezing(arm, frozen, layers)), layers, target)
        return _freezing(arm, count, layers)

    def off_by(self, arm: ArmConfig, ready: PreparedArm, reference: LayerPlan) -> float:
        counts = [ready.trainable_parameters]
        if arm.is_drawn:
            counts = [self.trainable(arm.with_options(plan_seed=seed)) for seed in self._config.seeds]
        return max((count / reference.savings.trainable_parameters - 1 for count in counts), key=abs)

    def prepared(self, arm: ArmConfig) -> PreparedArm:
        plan = self._with_adapters(arm) if arm.is_lora else self.plan(arm)
        return PreparedArm(
            arm=arm.model_dump(),
            trainable_parameters=plan.savings.trainable_parameters,
            total_parameters=plan.savings.total_parameters,
            flops_per_token=plan.savings.flops_per_token,
            plan=None if arm.is_lora else plan.model_dump(mode="json"),
        )

    def _with_adapters(self, arm: ArmConfig, rank: int | None = None) -> LayerPlan:
        skeleton = with_adapters(load_skeleton(self._config.model, revision=self._config.revision), arm, rank)
        return make_plan(skeleton, "full")


def _freezing(arm: ArmConfig, frozen: int, layers: int) -> ArmConfig:
    return arm.with_options(freeze_ratio=frozen / layers)


def _nearest(trainable: Callable[[int], int], layers: int, target: int) -> int:
    """How many layers to freeze: the more are frozen, the fewer parameters train."""
    last = bisect_left(range(1, layers), -target, key=lambda frozen: -trainable(frozen)) + 1
    candidates = [count for count in (last - 1, last) if 1 <= count < layers]
    return min(candidates, key=lambda count: abs(trainable(count) - target))
