"""`layertracer_hybrid.json`: where each layer of a hybrid comes from, and how that was verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import LayerTracerError


HYBRID_FILE = "layertracer_hybrid.json"
RECIPE_FILE = "layertracer_hybrid.yaml"
_VERSION: Literal[1] = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Origin(_Part):
    """Where one part of a hybrid comes from.

    Args:
        donor (`str`): Hub id, or name of a folder.
        revision (`str`, *optional*): The commit on the Hub.
        sha256 (`str`): Of the part: over each tensor's name, a zero byte and the SHA-256 of its bytes, sorted by name.
    """

    donor: str
    revision: str | None = None
    sha256: str


class LayerOrigin(Origin):
    """Where one layer comes from.

    Args:
        layer (`int`): Its number in the hybrid.
        donor_layer (`int`): Its number in the donor.
        kind (`str`): `"full_attention"`, `"mamba"`, ...
        mixer (`str`, *optional*): The kind of the new token mixer where it was replaced.
        init (`str`, *optional*): How the new mixer began.
        verified (`str`): What was compared, and with which result.
    """

    layer: int
    donor_layer: int
    kind: str
    mixer: str | None = None
    init: str | None = None
    verified: str


class Healing(_Part):
    """One stage of healing.

    Args:
        stage (`str`): `"alignment"` of the new mixers, or `"distillation"` of the logits.
        steps (`int`): Optimizer steps.
        tokens (`int`): Tokens trained on.
        learning_rate (`float`): The stage's.
        loss_before, loss_after (`float`): The stage's loss on blocks that were not trained on.
    """

    stage: Literal["alignment", "distillation"]
    steps: int
    tokens: int
    learning_rate: float
    loss_before: float
    loss_after: float


class HybridRecord(_Part):
    """What is known of a hybrid.

    Args:
        architecture (`str`): Class of transformers that it loads as.
        base (`str`): The model whose configuration was taken.
        base_revision (`str`, *optional*): Its commit on the Hub.
        dtype (`str`): Data type of the weights.
        remote_code (`bool`): Whether the class is ours and lies beside the weights.
        recipe (`dict`): The recipe.
        layers (`list[LayerOrigin]`): One entry a layer.
        embeddings, norm, head ([`Origin`], *optional*): Where these come from; a tied head has none of its own.
        tokenizer (`str`): Donor of the tokenizer.
        class_verified (`str`, *optional*):
            Where the class is not the donor's: how far the logits of the unmodified model are from the donor's.
        licenses (`dict[str, str]`): Of each donor whose card names one, by its name.
        healings (`list[Healing]`): What was done to teach the new mixers.
        notes (`list[str]`): What to know before using it.
        versions (`dict[str, str]`): Of the libraries it was built with.
    """

    schema_version: Literal[1] = _VERSION
    architecture: str
    base: str
    base_revision: str | None = None
    dtype: str
    remote_code: bool = False
    recipe: dict[str, Any]
    layers: list[LayerOrigin]
    embeddings: Origin | None = None
    norm: Origin | None = None
    head: Origin | None = None
    tokenizer: str
    class_verified: str | None = None
    licenses: dict[str, str] = {}
    healings: list[Healing] = []
    notes: list[str] = []
    versions: dict[str, str] = {}

    @property
    def donors(self) -> list[str]:
        """Everyone who gave weights, each once, the base first."""
        parts = [part.donor for part in (self.embeddings, self.norm, self.head) if part is not None]
        return list(dict.fromkeys([self.base, *(layer.donor for layer in self.layers), *parts]))

    @classmethod
    def load(cls, folder: str | Path) -> HybridRecord:
        """Reads the record of a hybrid.

        Args:
            folder (`str` or `Path`): The hybrid's folder, or the file.

        Returns:
            [`HybridRecord`]: The record.

        Raises:
            LayerTracerError: There is none, or it is not valid.
        """
        path = Path(folder)
        path = path / HYBRID_FILE if path.is_dir() else path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = content.get("schema_version")
            if isinstance(version, int) and version > _VERSION:
                raise LayerTracerError(
                    f"{path} has schema version {version}, which this version cannot read. Upgrade hf_layertracer."
                )
            return cls.model_validate(content)
        except OSError as error:
            raise LayerTracerError(
                f"{folder} holds no hybrid: {HYBRID_FILE} cannot be read ({error.strerror})."
            ) from error
        except (ValidationError, AttributeError, json.JSONDecodeError) as error:
            raise LayerTracerError(f"{path} is not valid: {' '.join(str(error).split())[:300]}") from error
