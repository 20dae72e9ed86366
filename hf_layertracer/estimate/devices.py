"""What accelerators hold and do, as their makers publish it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import LayerTracerError
from ..text import parse_bytes


GIB = 1 << 30
# A step that reaches this share of the published rate is well tuned; many reach less.
UTILISATION = 0.4
# Bytes of memory in GiB, dense bfloat16 (V100, T4: float16) tensor rate in TFLOP/s.
_TABLE = {
    "T4": (16, 65),
    "V100 16GB": (16, 125),
    "V100 32GB": (32, 125),
    "RTX 3090": (24, 71),
    "RTX 4090": (24, 165),
    "A10": (24, 125),
    "L4": (24, 121),
    "A100 40GB": (40, 312),
    "L40S": (48, 362),
    "A100 80GB": (80, 312),
    "H100 80GB": (80, 989),
    "H200": (141, 989),
}


@dataclass(frozen=True)
class Device:
    """What a plan has to fit on.

    Args:
        name (`str`): As the user names it.
        memory_bytes (`int`): Its memory.
        flops_per_second (`float`, *optional*): Its published peak rate; unknown where only a size was named.
    """

    name: str
    memory_bytes: int
    flops_per_second: float | None = None


def find_device(name: str) -> Device:
    """Looks an accelerator up, or takes a plain amount of memory.

    Args:
        name (`str`): A name such as `"H100 80GB"` or `"RTX 4090"`, or a size such as `"24GB"`.

    Returns:
        [`Device`]: Its memory and rate.

    Raises:
        LayerTracerError: Neither is meant.

    Example:

    ```python
    >>> from hf_layertracer.estimate.devices import find_device
    >>> find_device("24GB").memory_bytes
    25769803776
    ```
    """
    wanted = _plain(name)
    for known, (gibibytes, teraflops) in _TABLE.items():
        if wanted == _plain(known):
            return Device(known, gibibytes * GIB, teraflops * 1e12)
    try:
        return Device(name, parse_bytes(name))
    except LayerTracerError:
        raise LayerTracerError(
            f"Unknown device {name!r}. There are: {', '.join(_TABLE)}; or name its memory, such as '24GB'."
        ) from None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]|nvidia|geforce", "", name, flags=re.IGNORECASE).upper()
