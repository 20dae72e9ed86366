"""What accelerators hold and do, as their makers publish it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import LayerTracerError
from ..text import parse_bytes


GIB = 1 << 30
# A step that reaches this share of the published rate is well tuned; many reach less.
UTILISATION = 0.4
# Memory in GiB; TFLOP/s of dense tensor products in bfloat16 (V100, T4: float16), and in float32 without TF32.
_TABLE = {
    "T4": (16, 65, 8.1),
    "V100 16GB": (16, 125, 15.7),
    "V100 32GB": (32, 125, 15.7),
    "RTX 3090": (24, 71, 35.6),
    "RTX 4090": (24, 165, 82.6),
    "A10": (24, 125, 31.2),
    "L4": (24, 121, 30.3),
    "A100 40GB": (40, 312, 19.5),
    "L40S": (48, 362, 91.6),
    "A100 80GB": (80, 312, 19.5),
    "H100 80GB": (80, 989, 67),
    "H200": (141, 989, 67),
}


@dataclass(frozen=True)
class Device:
    """What a plan has to fit on.

    Args:
        name (`str`): As the user names it.
        memory_bytes (`int`): Its memory.
        flops_per_second (`float`, *optional*):
            Its published peak rate in half precision; unknown where only a size was named.
        float32_flops_per_second (`float`, *optional*): The same in float32.
    """

    name: str
    memory_bytes: int
    flops_per_second: float | None = None
    float32_flops_per_second: float | None = None

    def rate(self, half: bool) -> float | None:
        """The published peak rate.

        Args:
            half (`bool`): Whether products are made in half precision, rather than in float32.

        Returns:
            `float`: Operations per second; `None` where it is not known.
        """
        return self.flops_per_second if half else self.float32_flops_per_second


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
    for known, (gibibytes, half, single) in _TABLE.items():
        if wanted == _plain(known):
            return Device(known, gibibytes * GIB, half * 1e12, single * 1e12)
    try:
        return Device(name, parse_bytes(name))
    except LayerTracerError:
        raise LayerTracerError(
            f"Unknown device {name!r}. There are: {', '.join(_TABLE)}; or name its memory, such as '24GB'."
        ) from None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]|nvidia|geforce", "", name, flags=re.IGNORECASE).upper()
