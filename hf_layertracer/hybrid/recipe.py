"""What a hybrid is made of: a recipe in YAML or JSON, checked before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, field_validator, model_validator

from ..errors import LayerTracerError
from ..files import write_atomically
from ..yaml_file import read_yaml
from .mergekit import from_mergekit, is_mergekit


MixerKind = Literal["mamba2", "gated_deltanet"]
MixerInit = Literal["from_attention", "fresh"]
Name = Annotated[str, Field(min_length=1)]
Index = Annotated[StrictInt, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class LayerSource(_Strict):
    """Layers that one donor gives, in their order.

    Args:
        donor (`str`): Hub id, `id@revision` or folder; `from` in the file.
        layer_range (`tuple[int, int]`): Half open: `[0, 16]` is layers 0 to 15.
    """

    donor: Name = Field(alias="from")
    layer_range: tuple[Index, Index]

    @field_validator("layer_range")
    @classmethod
    def _forward(cls, value: tuple[int, int]) -> tuple[int, int]:
        start, end = value
        if start >= end:
            raise ValueError(f"[{start}, {end}] holds no layer: the end is exclusive and must lie above the start")
        return value


class MixerReplacement(_Strict):
    """Layers of the hybrid whose token mixer is replaced.

    Args:
        layers (`tuple[int, ...]`): Layers of the hybrid, from 0.
        kind (`str`): `"mamba2"` or `"gated_deltanet"`.
        init (`str`, *optional*, defaults to `"from_attention"`):
            Take the attention's projections over, or start as the class does (`"fresh"`).
    """

    layers: Annotated[tuple[Index, ...], Field(min_length=1)]
    kind: MixerKind
    init: MixerInit = "from_attention"


class HybridRecipe(_Strict):
    """A model made of layers of several donors, with some token mixers replaced.

    Args:
        base (`str`): The model whose configuration, and all that is not named, is taken. Hub id, `id@revision` or folder.
        layers (`tuple[LayerSource, ...]`, *optional*): The stack from first to last; all of the base's by default.
        mixers (`tuple[MixerReplacement, ...]`, *optional*): Token mixers to replace.
        embeddings (`str`, *optional*): Donor of the embeddings; the base by default.
        norm (`str`, *optional*): Donor of the final norm; the base by default.
        head (`str`, *optional*): Donor of the output head; the base by default.
        tokenizer (`str`, *optional*):
            Donor of the tokenizer, its chat template and the generation settings; that of the embeddings by default.
        dtype (`str`, *optional*): `"float32"`, `"bfloat16"` or `"float16"`; as stored by default.
        seed (`int`, *optional*, defaults to `0`): Of new weights that are drawn.
        remote_code (`bool`, *optional*, defaults to `False`):
            Where no class of transformers holds the mixers, write a class of ours beside the weights, which
            `from_pretrained(..., trust_remote_code=True)` loads.
        reason (`str`, *optional*): Why this recipe, in words; it goes into the card.

    Example:

    ```python
    >>> from hf_layertracer import HybridRecipe
    >>> recipe = HybridRecipe.from_dict({"base": "org/small", "mixers": [{"layers": [3, 9], "kind": "mamba2"}]})
    >>> recipe.mixers[0].init
    'from_attention'

    ```
    """

    base: Name
    layers: Annotated[tuple[LayerSource, ...], Field(min_length=1)] | None = None
    mixers: tuple[MixerReplacement, ...] = ()
    embeddings: Name | None = None
    norm: Name | None = None
    head: Name | None = None
    tokenizer: Name | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    seed: Index = 0
    remote_code: bool = False
    reason: str | None = None

    @model_validator(mode="after")
    def _once(self) -> HybridRecipe:
        seen: set[int] = set()
        for number, mixer in enumerate(self.mixers):
            twice = sorted(seen.intersection(mixer.layers) | {i for i in mixer.layers if mixer.layers.count(i) > 1})
            if twice:
                raise ValueError(f"mixers[{number}] names layer {twice[0]} a second time")
            seen.update(mixer.layers)
        return self

    @classmethod
    def of(cls, recipe: Any) -> HybridRecipe:
        """The recipe, whatever it comes in.

        Args:
            recipe ([`HybridRecipe`], `dict`, `str` or `Path`): A recipe, what its file holds, or the file.

        Returns:
            [`HybridRecipe`]: The recipe.

        Raises:
            LayerTracerError: It is something else or not valid.
        """
        if isinstance(recipe, HybridRecipe):
            return recipe
        return cls.from_file(recipe) if isinstance(recipe, str | Path) else cls.from_dict(recipe)

    @classmethod
    def from_dict(cls, content: dict[str, Any], place: str = "recipe") -> HybridRecipe:
        """Reads a recipe, ours or mergekit's passthrough, from what YAML or JSON held.

        Args:
            content (`dict`): The recipe.
            place (`str`, *optional*, defaults to `"recipe"`): What to call it in messages.

        Returns:
            [`HybridRecipe`]: The recipe.

        Raises:
            LayerTracerError: It is not valid; each mistake is named with its place.
        """
        if not isinstance(content, dict):
            raise LayerTracerError(f"{place}: a recipe is a mapping that begins with `base:`.")
        if is_mergekit(content):
            content = from_mergekit(content, place)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            mistakes = "; ".join(_mistake(details) for details in error.errors())
            raise LayerTracerError(f"{place}: {mistakes}.") from error

    @classmethod
    def from_file(cls, path: str | Path) -> HybridRecipe:
        """Reads a recipe from a YAML or JSON file.

        Args:
            path (`str` or `Path`): The file.

        Returns:
            [`HybridRecipe`]: The recipe.

        Raises:
            LayerTracerError: There is no such file or it is not valid; each mistake is named with its place.
        """
        return cls.from_dict(read_yaml(path), str(path))

    def to_dict(self) -> dict[str, Any]:
        """The recipe as it stands in a file, without what is left to the defaults."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def to_yaml(self) -> str:
        """The recipe as YAML."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)

    def save(self, path: str | Path) -> None:
        """Writes the recipe as YAML.

        Args:
            path (`str` or `Path`): The file.
        """
        write_atomically(Path(path), self.to_yaml().encode())


def _mistake(details: Any) -> str:
    """One of pydantic's findings as `layers[1].layer_range: what is wrong`."""
    place = ""
    for part in details["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f"{'.' if place else ''}{part}"
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "extra_forbidden":
        message = "unknown key"
    return f"{place}: {message[:1].lower()}{message[1:]}" if place else message
