"""The report that a training run begins with, and its plan: measured, loaded, or of a model that cannot be measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from ..config import DiagnosisConfig
from ..diagnosis.diagnose import diagnose
from ..diagnosis.origin import unmeasured_report
from ..distributed import from_main_process
from ..errors import LayerTracerError, UntraceableModelError
from ..logs import get_logger
from ..modeling import ModelParts, context_length
from ..modeling.facts import model_facts
from ..modeling.wrappers import whole_parameters
from ..planning import configured_plan, make_plan, read_plan
from ..planning.binding import check_binding
from ..planning.config import LayerTracerConfig
from ..planning.fitting import MemoryOfPlans
from ..planning.strategies import STRATEGIES, strategy_named
from ..probes import Probe
from ..probes.encoding import probes_hash
from ..probes.preparing import prepare_probes
from ..report import REPORT_FILE, LayerTracerReport
from .proportion import some_from_all_over


logger = get_logger(__name__)

# Settings of a diagnosis that say how it fits a machine and a wrapped model, and not what it measures.
_OF_THIS_RUN = ("diagnosis_batch_size", "memory_budget", "layers_path")


def first_report(
    config: LayerTracerConfig,
    settings: DiagnosisConfig,
    parts: ModelParts,
    probes: Sequence[Probe],
    tokenizer: PreTrainedTokenizerBase | None,
    precision: Callable[[], AbstractContextManager],
    problem: str | None,
) -> LayerTracerReport:
    """Diagnoses a model before it trains. One that cannot be diagnosed can still be trained.

    Args:
        config ([`LayerTracerConfig`]): The settings of the run; they may name a report to load instead.
        settings ([`DiagnosisConfig`]): How to measure.
        parts ([`ModelParts`]): The model and its layers.
        probes (`Sequence[Probe]`): What to diagnose with.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): The model's tokenizer.
        precision (`Callable`): Makes the context that the model is run in.
        problem (`str`, *optional*): Why there are no probes.

    Returns:
        [`LayerTracerReport`]: The report, without a plan that counts.

    Raises:
        LayerTracerError: Nothing can be measured, and the strategy needs measurements; or settings cannot be used.
    """
    if config.report is not None:
        report = LayerTracerReport.load(config.report)
        # What was measured and decided while an earlier run trained is no part of this one.
        report.diagnoses, report.plans = report.diagnoses[:1], []
        report.notes += check_binding(report.model, model_facts(parts))
        return report
    report = None
    if problem is None:
        try:
            with precision(), whole_parameters(parts.model):
                report = diagnose(parts.model, probes, tokenizer=tokenizer, config=settings)
        except UntraceableModelError as error:
            problem = str(error)
        except LayerTracerError:
            raise
        except Exception as error:  # a model of any make may fail in any way, and can still be trained
            problem = f"The diagnosis failed ({type(error).__name__}: {error!s:.200})."
            logger.debug("The whole error:", exc_info=True)
    # Processes may round differently, and a plan that differs between them would hang the run.
    report, problem = from_main_process((report, problem))
    if report is not None:
        return report
    if config.plan is None and "measurements" in strategy_named(config.strategy).needs:
        others = ", ".join(repr(s.name) for s in STRATEGIES.values() if "measurements" not in s.needs)
        raise LayerTracerError(
            f"The strategy {config.strategy!r} needs measurements, and there are none. {problem} These need none: {others}."
        )
    return unmeasured_report(parts, settings, problem)


def as_in_report(
    config: LayerTracerConfig,
    report: LayerTracerReport,
    parts: ModelParts,
    probes: list[Probe],
    tokenizer: PreTrainedTokenizerBase | None,
) -> tuple[DiagnosisConfig, list[Probe]]:
    """How a run that began with a loaded report is measured again: as that was, or the figures would not compare.

    Args:
        config ([`LayerTracerConfig`]): The settings of the run, which name the report.
        report ([`LayerTracerReport`]): The run's report, with its plan.
        parts ([`ModelParts`]): The model and its layers.
        probes (`list[Probe]`): The run's probes.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): The model's tokenizer.

    Returns:
        `tuple[DiagnosisConfig, list[Probe]]`: The report's settings and probes; where the run measures nothing, its own
            probes, whatever they are.

    Raises:
        LayerTracerError: The run is to be measured again, and its probes are not those of the report.
    """
    settings = replace(report.settings, **{name: getattr(config, name) for name in _OF_THIS_RUN})
    asks = _what_measures_again(config, report)
    if asks is None:
        return settings, probes
    # A report of a quick look asked some of the probes that the same data or file give now.
    for chosen in (probes, some_from_all_over(probes)):
        if chosen and _hash_of(chosen, tokenizer, context_length(parts.model), settings) == report.probes.sha256:
            return settings, chosen
    raise LayerTracerError(
        f"{asks} measures the model again, to compare it with the report {config.report}, which asked other probes "
        f"({report.probes.count}) than this run has ({len(probes)}): pass the probes of that report (probes=...), or leave "
        "report out, so that the model is measured before it trains."
    )


def _what_measures_again(config: LayerTracerConfig, report: LayerTracerReport) -> str | None:
    """What in the settings asks for measurements while the model trains or after, if anything does."""
    if not report.is_measured:
        return None
    strategy = report.plan and strategy_named(report.plan.strategy)
    if strategy and strategy.change is not None and strategy.change.watches == "sensitivity":
        return f"The strategy {strategy.name!r}"
    if config.diagnose_steps is not None:
        return f"diagnose_steps={config.diagnose_steps}"
    return "diagnose_after=True" if config.diagnose_after else None


def _hash_of(
    probes: list[Probe], tokenizer: PreTrainedTokenizerBase | None, longest: int | None, settings: DiagnosisConfig
) -> str | None:
    """The hash of probes as a diagnosis would ask them; `None` for such as it would refuse."""
    try:
        return probes_hash(prepare_probes(probes, tokenizer, longest, settings.skip_long).encoded)
    except LayerTracerError:
        return None


def decide(
    model: nn.Module, config: LayerTracerConfig, report: LayerTracerReport, memory: MemoryOfPlans | None = None
) -> None:
    """Puts the plan of the settings into the report.

    Args:
        model (`nn.Module`): The model.
        config ([`LayerTracerConfig`]): The settings.
        report ([`LayerTracerReport`]): The report of the model.
        memory ([`MemoryOfPlans`], *optional*): What a limit on memory is compared with.

    Raises:
        LayerTracerError: The settings and the model give no plan.
    """
    path = report.model.layers_path
    try:
        plan = configured_plan(model, config, report=report, layers_path=path, memory=memory)
    except LayerTracerError:
        if report.num_layers > 1:
            raise
        plan = make_plan(model, "full", report=report, layers_path=path)
        report.notes.append("The model has a single layer, so there is nothing to choose: all of it trains.")
    report.set_plan(plan)


def report_of_checkpoint(checkpoint: Path, config: LayerTracerConfig) -> LayerTracerReport | None:
    """The report of a checkpoint, or of the run that it belongs to; its plan stays in force whatever the settings say.

    Args:
        checkpoint (`Path`): The checkpoint's folder.
        config ([`LayerTracerConfig`]): The settings of this run.

    Returns:
        [`LayerTracerReport`]: The report, or `None` where there is none.

    Raises:
        LayerTracerError: It holds no plan, or cannot be read.
    """
    places = [place for place in (checkpoint, checkpoint.parent) if (place / REPORT_FILE).is_file()]
    if not places:
        return None
    report = LayerTracerReport.load(places[0])
    if report.plan is None:
        raise LayerTracerError(f"The report in {places[0]} holds no plan to go on with.")
    wanted = (config.strategy, config.plan_options())
    if config.plan is not None:
        planned = read_plan(config.plan)
        wanted = (planned.strategy, planned.options)
    if (report.plan.strategy, report.plan.options) != wanted:
        logger.warning(
            f"The checkpoint's plan stays in force ({report.plan.strategy}, {report.plan.options or 'no options'}); "
            f"the settings of this run are ignored ({wanted[0]}, {wanted[1] or 'no options'})."
        )
    return report
