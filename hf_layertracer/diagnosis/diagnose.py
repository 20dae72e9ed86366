"""The diagnosis of a model, and the record that it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..config import DiagnosisConfig
from ..errors import LayerTracerError
from ..modeling import context_length, find_parts
from ..modeling.devices import warn_if_emulated
from ..modeling.facts import model_facts
from ..modeling.preserve import preserved
from ..planning import make_plan
from ..probes import Probe, as_probes
from ..probes.encoding import EncodedProbe, probes_hash
from ..probes.preparing import prepare_probes
from ..records import Diagnosis, ProbeFacts, ProbeRecord
from ..report import LayerTracerReport
from .engine import Engine
from .layer_stack import LayerStack
from .measurements import chosen_measurements
from .notes import notes_of
from .origin import origin
from .summary import by_task


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEXT_LIMIT = 200


def diagnose(
    model: nn.Module,
    probes: Sequence[Probe] | Sequence[Mapping[str, Any]] | str | Path | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    config: DiagnosisConfig | Mapping[str, Any] | None = None,
) -> LayerTracerReport:
    """Measures what each layer of a causal language model does.

    The model is left exactly as it was found, also when the diagnosis is interrupted: same training mode, no hook, no
    parameter or buffer touched, random states restored.

    Args:
        model (`nn.Module`): A causal language model, wrapped (DDP, PEFT, ...) or not.
        probes (`Sequence[Probe]`, *optional*):
            What to ask it, or a file or rows that [`load_probes`] reads; the probes of the package by default. Copies are
            asked once.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Needed unless the probes are token ids.
        config ([`DiagnosisConfig`], *optional*): The settings.

    Returns:
        [`LayerTracerReport`]: The measurements, with the default plan (`"freeze-deep"`) where the model admits one.

    Raises:
        UntraceableModelError: The model is no causal language model, or its layers cannot be found or traced.
        LayerTracerError: The probes cannot be used, or the memory budget is too small.

    Example:

    ```python
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from hf_layertracer import Probe, diagnose
    >>> config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4)
    >>> model = LlamaForCausalLM(config)
    >>> report = diagnose(model, [Probe((5, 6, 7), 8), Probe((9, 10), 11)])  # text needs tokenizer=...
    >>> len(report.sensitivity.mean), len(report.lens.mean_probability)
    (4, 5)
    ```
    """
    config = DiagnosisConfig.of(config)
    given = as_probes(probes, tokenizer=tokenizer, seed=config.diagnosis_seed)
    parts = find_parts(model, config.layers_path)
    prepared = prepare_probes(given, tokenizer, context_length(parts.model), config.skip_long)
    probes, encoded = prepared.probes, prepared.encoded
    facts = model_facts(parts)
    if "mask" in config.perturbations and facts.hidden_size and round(config.mask_ratio * facts.hidden_size) < 1:
        raise LayerTracerError(
            f"mask_ratio={config.mask_ratio:g} would mask none of the model's {facts.hidden_size} hidden dimensions: it "
            f"must be at least {1 / facts.hidden_size:.1g}."
        )
    stack = LayerStack(parts)
    warn_if_emulated(next(parts.model.parameters()).dtype, stack.input_device)
    engine = Engine(stack, encoded, config, chosen_measurements(config), tokenizer)
    # Whatever a diagnosis leaves in a model, training must be able to use: also where the caller is in inference mode.
    with preserved(parts.model), torch.inference_mode(False), torch.no_grad():
        engine.run()
    measured = _merged([measurement.result() for measurement in engine.measurements])
    report = LayerTracerReport(
        **origin(),
        model=facts,
        settings=config,
        probes=_probe_facts(probes, encoded, tokenizer),
        diagnoses=[
            Diagnosis(
                step=0,
                durations={name: round(seconds, 3) for name, seconds in engine.durations.items()},
                memory={**engine.memory, **measured.pop("memory", {})},
                **measured,
            )
        ],
    )
    report.notes = prepared.notes + notes_of(report, sorted(set(range(parts.num_layers)) - set(engine.called)))
    try:
        report.set_plan(make_plan(report))
    except LayerTracerError as error:
        report.notes.append(f"No default plan: {error}")
    return report


def _merged(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All results in one; where several fill the same field, each adds its entries to it."""
    merged: dict[str, Any] = {}
    for result in results:
        for name, value in result.items():
            merged[name] = {**merged[name], **value} if name in merged else value
    return merged


def _probe_facts(
    probes: Sequence[Probe],
    encoded: Sequence[EncodedProbe],
    tokenizer: PreTrainedTokenizerBase | None,
) -> ProbeFacts:
    def text(value: str | Sequence[int] | int) -> str | None:
        if isinstance(value, str):
            return value[-_TEXT_LIMIT:]
        if tokenizer is None:
            return None
        return tokenizer.decode(list(value) if isinstance(value, Sequence) else [value])[-_TEXT_LIMIT:]

    tasks = [probe.task for probe in encoded]
    return ProbeFacts(
        count=len(probes),
        sha256=probes_hash(encoded),
        tasks={task: len(members) for task, members in by_task(tasks).items()},
        items=[
            ProbeRecord(
                prompt=text(probe.prompt),
                target=text(probe.target),
                task=probe.task,
                tokens=len(ids.input_ids),
            )
            for probe, ids in zip(probes, encoded, strict=True)
        ],
    )
