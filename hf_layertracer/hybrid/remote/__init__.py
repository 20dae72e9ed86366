"""The class that is written beside the weights where no class of transformers holds a hybrid's mixers.

The two modules here are published as they are and import nothing of this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from .configuration_layertracer_hybrid import LayerTracerHybridConfig

CODE = tuple(Path(__file__).with_name(f"{kind}_layertracer_hybrid.py") for kind in ("configuration", "modeling"))


def known_to_transformers() -> type[LayerTracerHybridConfig]:
    """Registers the class, so that this process loads such models without running the code that lies beside them.

    Returns:
        `type[LayerTracerHybridConfig]`: The class of its configuration.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    from .configuration_layertracer_hybrid import LayerTracerHybridConfig
    from .modeling_layertracer_hybrid import LayerTracerHybridForCausalLM

    AutoConfig.register(LayerTracerHybridConfig.model_type, LayerTracerHybridConfig, exist_ok=True)
    AutoModelForCausalLM.register(LayerTracerHybridConfig, LayerTracerHybridForCausalLM, exist_ok=True)
    return LayerTracerHybridConfig
