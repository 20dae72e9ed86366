"""What every perturbation has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias


if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...config import DiagnosisConfig
    from ..clean_run import CleanRun
    from ..layer_stack import LayerStack

# Takes the index of a layer, its input and its output, each of shape `(rows, positions, ..., width)`, and returns what
# the layer answers instead. One row is one draw.
Perturb: TypeAlias = "Callable[[int, Tensor, Tensor], Tensor]"


@dataclass(frozen=True)
class Draw:
    """One random perturbation of one probe, the same in every layer.

    Args:
        probe (`int`): Number of the probe among all probes.
        repeat (`int`): Number of the repeat, from 0.
        probes (`int`): How many probes there are, so that no two draws have the same `number`.
    """

    probe: int
    repeat: int
    probes: int

    @property
    def number(self) -> int:
        return self.repeat * self.probes + self.probe


class Perturbation(ABC):
    """What is done to a layer's output, whose effect on the model's output is the layer's sensitivity.

    A new one is a subclass in its own module in this folder.

    Args:
        config ([`DiagnosisConfig`]): The settings; each perturbation reads its own.
    """

    name: ClassVar[str]
    """The name under which it is chosen and reported."""
    summary: ClassVar[str]
    """What it does, in a few words."""
    random: ClassVar[bool]
    """Whether it is drawn anew for each repeat."""

    def __init__(self, config: DiagnosisConfig):
        self.seed = config.diagnosis_seed

    def masks(self, draws: Sequence[Draw], width: int) -> Tensor | None:
        """Booleans of shape `(draws, width)`, `True` where a dimension is lost, for a perturbation that loses some."""
        return None

    def design(self, draw: Draw, width: int) -> int:
        """A number that draws share which depend on each other."""
        return draw.number

    def ablated(self, stack: LayerStack, clean: CleanRun) -> list[list[nn.Module]] | None:
        """Modules of each layer that return zero while it runs, for a perturbation inside the layers.

        Args:
            stack ([`LayerStack`]): The model's layers.
            clean ([`CleanRun`]): A clean run.
        """
        return None

    @abstractmethod
    def on(self, draws: Sequence[Draw], width: int) -> Perturb:
        """The perturbation of a batch.

        No two probes share a draw: random perturbations differ far more in what they do than probes do, so every
        further one makes the mean over probes more certain.

        Args:
            draws (`Sequence[Draw]`): The draw of each row.
            width (`int`): Size of the hidden state's last dimension.

        Returns:
            `Callable`: Turns a layer's index, input and output into what the layer answers instead.
        """
