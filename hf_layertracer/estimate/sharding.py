"""How launchers share a model out over devices, as arithmetic on what one device would hold."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import LayerTracerError


# Which of weights, gradients and optimizer state each way divides by the number of devices.
SHARDINGS: dict[str, tuple[bool, bool, bool]] = {
    "ddp": (False, False, False),
    "zero1": (False, False, True),
    "zero2": (False, True, True),
    "zero3": (True, True, True),
    "fsdp": (True, True, True),
}


@dataclass(frozen=True)
class Share:
    """What one of several devices holds.

    Args:
        weights_bytes, gradient_bytes, optimizer_bytes (`int`): Its part.
        extra_bytes (`int`): What the launcher itself holds: buckets that gradients are exchanged in, gathered layers.
    """

    weights_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    extra_bytes: int


def share_out(
    weights: int, gradients: int, optimizer: int, largest_layer: int, world_size: int, sharding: str
) -> Share:
    """One device's part of a training step.

    Args:
        weights, gradients, optimizer (`int`): Bytes on a single device.
        largest_layer (`int`): Bytes of the weights of the largest layer.
        world_size (`int`): Number of devices.
        sharding (`str`): `"ddp"`, `"zero1"`, `"zero2"`, `"zero3"` or `"fsdp"`.

    Returns:
        [`Share`]: Where weights are sharded, the layer that runs and the one that is fetched ahead are there whole;
        where gradients are not, there is a second copy of them in the buckets of the exchange.

    Raises:
        LayerTracerError: Unknown sharding, or fewer than one device.
    """
    if sharding not in SHARDINGS:
        raise LayerTracerError(f"Unknown sharding {sharding!r}. There are: {', '.join(SHARDINGS)}.")
    if world_size < 1:
        raise LayerTracerError(f"world_size must be at least 1, not {world_size}.")
    if world_size == 1:
        return Share(weights, gradients, optimizer, 0)
    sizes = (weights, gradients, optimizer)
    ours = [-(-size // world_size) if cut else size for size, cut in zip(sizes, SHARDINGS[sharding], strict=True)]
    extra = 2 * largest_layer if SHARDINGS[sharding][0] else gradients
    return Share(ours[0], ours[1], ours[2], extra)
