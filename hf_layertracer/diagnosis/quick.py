"""The quick look: what can be measured of a model in a time that grows with its depth and no faster."""

from __future__ import annotations

from dataclasses import replace

from ..config import DiagnosisConfig


QUICK_PROBES = 24
"""Probes of a quick look."""
# To skip each layer and run those behind it takes the square of the depth for each probe: so deep models get fewer.
_LAYERS_SKIPPED = 192
_FEWEST_PROBES = 3


def quick_look(config: DiagnosisConfig, num_layers: int) -> DiagnosisConfig:
    """Settings of a quick look: lens, block influence and context on every probe, each layer skipped on a few.

    Args:
        config ([`DiagnosisConfig`]): Settings, of which all others are kept.
        num_layers (`int`): How many layers the model has.

    Returns:
        [`DiagnosisConfig`]: With the perturbation `"skip"` alone, on as many probes as the depth allows, and one draw of
        the context for each probe.

    Example:

    ```python
    >>> from hf_layertracer import DiagnosisConfig
    >>> from hf_layertracer.diagnosis.quick import quick_look
    >>> quick_look(DiagnosisConfig(), num_layers=32).skip_probes
    6
    ```
    """
    probes = max(_FEWEST_PROBES, _LAYERS_SKIPPED // num_layers)
    return replace(config, perturbation="skip", repeats=1, skip_probes=probes, until_stderr=None, until_boundary=None)
