"""Packages whose names are imported when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence


def lazy_names(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """Makes the `__getattr__` of a package, so that importing it is cheap.

    Args:
        package (`str`): The package's `__name__`.
        modules (`Mapping[str, Sequence[str]]`): The public names by the module that they are in.

    Returns:
        `Callable[[str], object]`: The function.
    """
    places = {name: module for module, names in modules.items() for name in names}

    def find(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f".{places[name]}", package), name)

    return find
