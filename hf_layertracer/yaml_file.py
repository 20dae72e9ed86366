"""Files of settings that people write: YAML, and with it JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from .errors import LayerTracerError
from .text import one_line


def read_yaml(path: str | Path) -> Any:
    """Reads a file of settings.

    Args:
        path (`str` or `Path`): A `.json` file, or any other with YAML.

    Returns:
        `Any`: What it holds.

    Raises:
        LayerTracerError: It cannot be read, or is neither.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise LayerTracerError(f"Could not read {path}: {error.strerror or error}.") from error
    # Dates that do not exist, numbers of thousands of digits, brackets in thousands of brackets.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise LayerTracerError(f"{path} is no valid YAML or JSON: {one_line(str(error), 300)}.") from error
