"""Files of settings that people write: YAML, and with it JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from .errors import LayerTracerError
from .text import one_line


class _Loader(yaml.SafeLoader):
    """Refuses a name that stands twice in one place: YAML forbids it, and of a pasted section the first would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # Before a merge (<<) adds names that may be overruled.
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> Any:
    """Reads a file of settings.

    Args:
        path (`str` or `Path`): A `.json` file, or any other with YAML.

    Returns:
        `Any`: What it holds.

    Raises:
        LayerTracerError: It cannot be read, is neither, or has a name twice in one place.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.load(text, _Loader)
    except OSError as error:
        raise LayerTracerError(f"Could not read {path}: {error.strerror or error}.") from error
    # Dates that do not exist, numbers of thousands of digits, brackets in thousands of brackets.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise LayerTracerError(f"{path} is no valid YAML or JSON: {one_line(str(error), 300)}.") from error
