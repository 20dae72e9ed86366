"""The one error that a user of the library can cause."""

from __future__ import annotations


class LayerTracerError(ValueError):
    """Bad input or a model that cannot do what was asked: the message says what was wrong and what to do.

    Example:

    ```python
    >>> from hf_layertracer import DiagnosisConfig, LayerTracerError
    >>> try:
    ...     DiagnosisConfig(mask_ratio=2)
    ... except LayerTracerError as error:
    ...     print("one line, such as:", "mask_ratio" in str(error))
    one line, such as: True
    ```
    """


class UntraceableModelError(LayerTracerError):
    """The model is no causal language model whose layers can be traced; it can still be trained as usual."""


class ReportNotFoundError(LayerTracerError):
    """There is no report at the place that was named."""


class HubError(LayerTracerError):
    """The Hub, or the way to it, did not let something be done; what was to be pushed is still where it was."""


class IncompatibleDonorsError(LayerTracerError):
    """Layers of these models do not make one model; below the message's first line stands a table of what differs."""
