"""What a model may be called, and whether there is anything of that name on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..errors import LayerTracerError


CONFIG_FILE = "config.json"
ADAPTER_FILE = "adapter_config.json"


def check_name(name: str) -> None:
    """Refuses the name of a folder that is not there or holds no model, before anything heavy is imported for it.

    Args:
        name (`str`): Hub id, local folder or configuration file.

    Raises:
        LayerTracerError: It is a local path without a model, or can be no Hub id.

    Example:

    ```python
    >>> from hf_layertracer.modeling.names import check_name
    >>> check_name("Qwen/Qwen3-0.6B")
    ```
    """
    if os.path.isdir(name):
        if not any((Path(name) / file).is_file() for file in (CONFIG_FILE, ADAPTER_FILE)):
            raise LayerTracerError(f"The folder {name} holds no model: there is no {CONFIG_FILE} in it.")
        return
    if os.path.isfile(name):
        return
    if looks_local(name):
        raise LayerTracerError(f"There is no such {'file' if name.endswith('.json') else 'folder'}: {name}.")
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise LayerTracerError(f"{name!r:.120} is neither a folder on this machine nor the id of a model.") from None


def looks_local(name: str) -> bool:
    """Whether a name can only be meant as a path: a Hub id has at most one slash and does not begin with a dot."""
    return os.path.isabs(name) or name.startswith((".", "~")) or name.count("/") > 1 or name.endswith(("/", ".json"))
