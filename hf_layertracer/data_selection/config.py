"""How the best part of a corpus is found."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..checks import one_of, whole_number, within


SCORES = ("excess-loss", "perplexity-band")
BANDS = ("low", "medium", "high")


@dataclass(frozen=True)
class SelectionConfig:
    """How the best part of a corpus is found.

    Args:
        score (`str`, *optional*, defaults to `"excess-loss"`):
            `"excess-loss"`: bits per byte that the model needs beyond a reference model; the highest are kept: what the
            reference knows and the model can still learn (after Rho-1, arXiv 2404.07965, which does so token by token).
            `"perplexity-band"`: the model's own perplexity; a band of its ranks is kept (arXiv 2405.20541).
        fraction (`float`, *optional*, defaults to `0.5`): How much of the corpus to keep, in bytes of text.
        band (`str`, *optional*, defaults to `"medium"`): Which perplexities a band keeps: `"low"`, `"medium"`, `"high"`.
        max_characters (`int`, *optional*, defaults to `2000`):
            Longer documents are cut at ends of lines into pieces, each kept or not by itself.
        sequence_length (`int`, *optional*, defaults to `512`): Tokens that a model reads at once, never more than the
            models' contexts hold; longer pieces are read in parts.
    """

    score: str = field(
        default="excess-loss", metadata={"help": "What makes text worth keeping; see above.", "choices": SCORES}
    )
    fraction: float = field(default=0.5, metadata={"help": "How much of the corpus to keep, in bytes of text."})
    band: str = field(
        default="medium", metadata={"help": "Which perplexities perplexity-band keeps.", "choices": BANDS}
    )
    max_characters: int = field(
        default=2000, metadata={"help": "Longer documents are cut at ends of lines into pieces."}
    )
    sequence_length: int = field(default=512, metadata={"help": "Tokens that a model reads at once."})

    def __post_init__(self) -> None:
        one_of("score", self.score, SCORES)
        one_of("band", self.band, BANDS)
        within("fraction", self.fraction, 0, 1)
        whole_number("max_characters", self.max_characters)
        whole_number("sequence_length", self.sequence_length)
