"""The tabs of the viewer: one module each. A module here that has a `TAB` adds it."""

from __future__ import annotations

import importlib
import pkgutil

from .base import Page, Tab


__all__ = ["Page", "Tab", "offered_tabs"]


def offered_tabs() -> dict[str, Tab]:
    """The tabs of a page, from left to right.

    Returns:
        `dict[str, Tab]`: By name of their module, which is also their name in a link.
    """
    modules = {
        found.name: importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
    }
    tabs = {name: module.TAB for name, module in modules.items() if hasattr(module, "TAB")}
    return dict(sorted(((n, t) for n, t in tabs.items() if t.is_offered()), key=lambda item: item[1].place))
