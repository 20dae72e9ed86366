"""The report that a training run begins with, and its plan: measured, loaded, or of a model that cannot be measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from ..config import DiagnosisConfig
from ..diagnosis.diagnose import diagnose
from ..diagnosis.origin import unmeasured_report
from ..distributed import from_main_process
from ..errors import LayerTracerError, UntraceableModelError
from ..logs import get_logger
from ..modeling import ModelParts
from ..modeling.facts import model_facts
from ..modeling.wrappers import whole_parameters
from ..planning import configured_plan, make_plan, read_plan
from ..planning.binding import check_binding
from ..planning.config import LayerTracerConfig
from ..planning.fitting import MemoryOfPlans
from ..planning.strategies import STRATEGIES, strategy_named
from ..probes import Probe
from ..report import REPORT_FILE, LayerTracerReport


logger = get_logger(__name__)


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
