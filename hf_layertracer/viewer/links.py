"""Links to a view: what is shown, written into the page's address and read from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs


MAX_QUERY = 4_000
_MAX_VALUES = 200


@dataclass(frozen=True)
class Linked:
    """A control whose value a link holds.

    Args:
        control (`gr.components.Component`): The control.
        usual (`Any`): The value that a link leaves out.
        tab (`str`, *optional*): The only tab whose links hold it; those of all tabs by default.
        choices (`Sequence[str]`, *optional*): All values that a link may hold; any by default.
    """

    control: Any
    usual: Any
    tab: str | None = None
    choices: Sequence[str] | None = None

    def read(self, texts: list[str]) -> Any:
        """The value that texts of an address mean; `None` where they mean none.

        Args:
            texts (`list[str]`): What stands behind the control's name, each time that it stands there.

        Returns:
            `Any`: A value of the type of the usual one.
        """
        if isinstance(self.usual, list):
            return texts[:_MAX_VALUES]
        if isinstance(self.usual, bool):
            return texts[-1].lower() in ("true", "1")
        if isinstance(self.usual, int | float):
            try:
                number = float(texts[-1])
            except ValueError:
                return None
            return number if abs(number) < 2**53 else None
        return texts[-1] if self.choices is None or texts[-1] in self.choices else None


def read_link(query: str, linked: Mapping[str, Linked]) -> dict[str, Any]:
    """What an address says of a view.

    Args:
        query (`str`): The part of the address from the question mark on, of any content.
        linked (`Mapping[str, Linked]`): The controls by name.

    Returns:
        `dict[str, Any]`: Values by name of the control, and the name of a `"tab"`.
    """
    found = parse_qs(query[:MAX_QUERY].removeprefix("?"), errors="replace")
    values = {name: control.read(found[name]) for name, control in linked.items() if name in found}
    values = {name: value for name, value in values.items() if value is not None}
    return values | ({"tab": found["tab"][-1]} if "tab" in found else {})


def follow_script(linked: Mapping[str, Linked], tab: str | None = None) -> str:
    """JavaScript of an event that writes its inputs into the address.

    Args:
        linked (`Mapping[str, Linked]`): The controls by name, in the order of the inputs.
        tab (`str`, *optional*): The tab that was just opened; the one in the address by default.

    Returns:
        `str`: A function of `page.js`, called with the event's inputs.
    """
    known = [{"name": name, "usual": control.usual, "tab": control.tab} for name, control in linked.items()]
    return f"(...values) => window.layertracer.follow({json.dumps(known)}, values, {json.dumps(tab)})"
