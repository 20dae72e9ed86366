"""What every measurement has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from ...config import DiagnosisConfig
from ...probes.encoding import EncodedProbe
from ..clean_run import CleanRun
from ..layer_stack import LayerStack


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Subject:
    """What is diagnosed, and what is known of it before the first batch.

    Args:
        stack ([`LayerStack`]): The model's layers.
        probes (`Sequence[EncodedProbe]`): The probes.
        config ([`DiagnosisConfig`]): The settings.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): The model's.
        clean ([`CleanRun`]): A clean run over the longest probe.
        progress (`Callable[[int], object]`): Called with the number of values just measured.
    """

    stack: LayerStack
    probes: Sequence[EncodedProbe]
    config: DiagnosisConfig
    tokenizer: PreTrainedTokenizerBase | None
    clean: CleanRun
    progress: Callable[[int], object]

    @property
    def num_layers(self) -> int:
        return self.stack.num_layers

    @property
    def tasks(self) -> list[str]:
        """The task of each probe."""
        return [probe.task for probe in self.probes]


@dataclass(frozen=True)
class Batch:
    """Probes of one length, as the model was run on them.

    Args:
        members (`list[int]`): Numbers of the probes, one a row.
        targets (`Tensor`): Their target tokens, of shape `(probes,)`.
        clean ([`CleanRun`]): The clean run over their prompts.
        rows (`int`): The most rows of this length in one further forward pass.
        replay_problem (`str`, *optional*): Why replay is not to be used at this length.
    """

    members: list[int]
    targets: Tensor
    clean: CleanRun
    rows: int
    replay_problem: str | None = None


class Measurement(ABC):
    """Something that is measured of every probe, from a clean run over it or with further forward passes.

    The engine calls `start` once, `observe` for every batch, again for as long as `more` asks for it, and `result` at the
    end. A new measurement is a subclass in its own module and an entry in the list in `measurements/__init__.py`.
    """

    name: str
    """The name under which its duration is reported."""

    @classmethod
    def chosen(cls, config: DiagnosisConfig) -> list[Self]:
        """The measurements of this class that the settings ask for."""
        return [cls()]

    def start(self, subject: Subject) -> int:
        """Makes room.

        Args:
            subject ([`Subject`]): What is diagnosed.

        Returns:
            `int`: How many values it will report to `subject.progress`.
        """
        self.subject = subject
        return 0

    def replays(self, probe: int) -> bool:
        """Whether it runs some of the layers alone on a probe: replay is checked at the lengths of these.

        Args:
            probe (`int`): Its number.
        """
        return False

    @abstractmethod
    def observe(self, batch: Batch) -> None:
        """Takes what it needs of a batch. Batches come in any order and size.

        Args:
            batch ([`Batch`]): The probes and the clean run over them.
        """

    def more(self) -> int:
        """Whether it has to see all batches once more.

        Returns:
            `int`: How many further values it will report to `subject.progress`; 0 where it has all that it needs.
        """
        return 0

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """The fields of the diagnosis's record that it fills."""
