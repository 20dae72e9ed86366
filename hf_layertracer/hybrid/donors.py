"""Donors: models on the Hub or in a folder, of which only configuration, tokenizer and safetensors are read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml
from huggingface_hub import HfApi, ModelCard, snapshot_download
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from ..errors import LayerTracerError
from ..hub.transport import hub_errors
from ..modeling import EMBEDDINGS, HEAD, OTHER, ModelParts, find_parts
from ..modeling.facts import public_model_id
from ..modeling.loading import load_skeleton
from .safetensors_io import INDEX_FILE, SINGLE_FILE, StoredTensor, read_header


TOKENIZER_FILES = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
    "additional_chat_templates/*",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
)
_SMALL_FILES = ("config.json", "generation_config.json", "README.md", INDEX_FILE, *TOKENIZER_FILES)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, eq=False)
class Donor:
    """A model that gives layers.

    Args:
        name (`str`): As the recipe has it.
        folder (`Path`): Where its files lie.
        repo_id (`str`, *optional*): On the Hub; `None` for a folder.
        revision (`str`, *optional*): The commit on the Hub.
    """

    name: str
    folder: Path
    repo_id: str | None = None
    revision: str | None = None

    @property
    def public_name(self) -> str:
        """What may be published: the Hub id, or of a folder its last part."""
        return self.repo_id or public_model_id(str(self.folder.resolve())) or self.folder.name

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The configuration as transformers reads it."""
        try:
            config = AutoConfig.from_pretrained(self.folder)
        except (OSError, ValueError, KeyError, StrictDataclassError) as error:
            raise LayerTracerError(f"{self.name}: {' '.join(str(error).split())[:300]}") from error
        if getattr(config, "quantization_config", None) is not None:
            raise LayerTracerError(f"{self.name} is quantized. Take the model that it was made from.")
        return config

    @property
    def text_config(self) -> PreTrainedConfig:
        """The part of the configuration that describes the decoder."""
        return self.config.get_text_config(decoder=True)

    @cached_property
    def parts(self) -> ModelParts:
        """The model's structure, without weights."""
        parts = find_parts(load_skeleton(str(self.folder)))
        shared = [name for name, owners in parts.owners.items() if sum(isinstance(o, int) for o in owners) > 1]
        if shared:
            raise LayerTracerError(
                f"{self.name}: several layers share {shared[0]}; such layers cannot be taken apart."
            )
        return parts

    @cached_property
    def files(self) -> dict[str, str]:
        """The name of the file of each tensor; where there are one file and shards, the one file counts."""
        # As from_pretrained does: a model that is saved again in shards leaves its old single file behind, which it loads.
        self._fetch([SINGLE_FILE])
        if (self.folder / SINGLE_FILE).is_file():
            return dict.fromkeys(read_header(self.folder / SINGLE_FILE), SINGLE_FILE)
        if (self.folder / INDEX_FILE).is_file():
            try:
                places = json.loads((self.folder / INDEX_FILE).read_text(encoding="utf-8"))["weight_map"]
                return {str(name): Path(file).name for name, file in places.items()}
            except (ValueError, KeyError, AttributeError) as error:
                raise LayerTracerError(f"{self.folder / INDEX_FILE} cannot be read: {error}.") from error
        raise LayerTracerError(self._no_safetensors())

    def tensors(self, names: Iterable[str]) -> dict[str, StoredTensor]:
        """Where some tensors lie; the files that hold them are fetched, and their sizes checked.

        Args:
            names (`Iterable[str]`): As `files` has them.

        Returns:
            `dict[str, StoredTensor]`: By name, sorted.
        """
        names = sorted(names)
        shards = sorted({self.files[name] for name in names} - self._headers.keys())
        self._fetch(shards)
        for shard in shards:
            header = read_header(self.folder / shard)
            if lost := [name for name, file in self.files.items() if file == shard and name not in header]:
                raise LayerTracerError(
                    f"{self.folder / shard} lacks {lost[0]!r}, which the index of {self.name} promises."
                )
            self._headers[shard] = header
        return {name: self._headers[self.files[name]][name] for name in names}

    @cached_property
    def _headers(self) -> dict[str, dict[str, StoredTensor]]:
        return {}

    @cached_property
    def layers_prefix(self) -> str:
        """What the names of the layers' tensors begin with in the files, up to the layer's number."""
        found: dict[str, set[int]] = {}
        for name in self.files:
            if match := re.match(r"((?:[^.]*[^.\d][^.]*\.)*?)(\d+)\.", name):
                found.setdefault(match[1], set()).add(int(match[2]))
        exact = f"{self.parts.layers_path}."
        last = exact.split(".")[-2]
        whole = [prefix for prefix, numbers in found.items() if numbers >= set(range(self.parts.num_layers))]
        candidates = [prefix for prefix in whole if prefix == exact] or [
            prefix for prefix in whole if prefix.split(".")[-2] == last
        ]
        if len(candidates) != 1:
            raise LayerTracerError(
                f"{self.name}: the tensors of its {self.parts.num_layers} layers ({exact}0. and so on) are not in its "
                f"files; found: {', '.join(sorted(found)) or 'no numbered names'}."
            )
        return candidates[0]

    def layer_tensors(self, index: int) -> dict[str, StoredTensor]:
        """One layer's tensors by their names inside the layer, sorted."""
        prefix = f"{self.layers_prefix}{index}."
        names = [name for name in self.files if name.startswith(prefix)]
        return {name.removeprefix(prefix): tensor for name, tensor in self.tensors(names).items()}

    def outside(self, owner: str) -> list[StoredTensor]:
        """The tensors of the embeddings, the norm, the head or the rest, sorted by name."""
        return list(self.tensors(self._outside.get(owner, [])).values())

    @cached_property
    def _outside(self) -> dict[str, list[str]]:
        """The names of the tensors outside the layers, by owner."""
        module_of = {name: name for name in self.parts.model.state_dict()}
        prefix = f"{self.parts.model.base_model_prefix}."
        groups: dict[str, list[str]] = {}
        for name in self.files:
            if name.startswith(self.layers_prefix):
                continue
            forms = (name, prefix + name, name.removeprefix(prefix))
            module = next((form for form in forms if form in module_of), None)
            owner = OTHER if module is None else self.parts.owner_of(module)
            groups.setdefault(str(owner), []).append(name)
        return groups

    @cached_property
    def extra_layers(self) -> dict[int, dict[str, StoredTensor]]:
        """What the files number as layers behind the last one: modules for multi-token prediction."""
        inside = [name.removeprefix(self.layers_prefix) for name in self.files if name.startswith(self.layers_prefix)]
        numbers = sorted({int(name.split(".", 1)[0]) for name in inside})
        return {number: self.layer_tensors(number) for number in numbers if number >= self.parts.num_layers}

    @property
    def tied(self) -> bool:
        """Whether the output head is the embedding matrix."""
        return self.parts.tied

    def head_name(self) -> str:
        """What the head's matrix is called in a file."""
        head = self.parts.model.get_output_embeddings()
        path = next(path for path, module in self.parts.model.named_modules() if module is head)
        return f"{path}.weight"

    def embedding_matrix(self) -> StoredTensor:
        """The matrix that a tied head shares."""
        module = self.parts.model.get_input_embeddings()
        path = next(path for path, found in self.parts.model.named_modules() if found is module)
        stored = {tensor.name: tensor for tensor in self.outside(EMBEDDINGS) + self.outside(HEAD)}
        prefix = f"{self.parts.model.base_model_prefix}."
        names = (f"{path}.weight", f"{path}.weight".removeprefix(prefix), self.head_name())
        return next(stored[name] for name in names if name in stored)

    @cached_property
    def license(self) -> str | None:
        """The licence that its card names; for one that is not on the Hub's list, its own name."""
        card = self.folder / "README.md"
        if not card.is_file():
            return None
        try:
            data = ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
        except (ValueError, TypeError, yaml.YAMLError):
            return None
        named = data.get("license_name") if data.get("license") == "other" else None
        return str(named or data.get("license")) if data.get("license") else None

    def whole(self) -> Path:
        """The folder, with all weights there."""
        self._fetch(sorted(set(self.files.values())))
        return self.folder

    def tokenizer_files(self) -> list[Path]:
        """The files of its tokenizer and chat template."""
        return sorted({file for pattern in TOKENIZER_FILES for file in self.folder.glob(pattern) if file.is_file()})

    def _fetch(self, files: list[str]) -> None:
        if self.repo_id is not None and any(not (self.folder / file).exists() for file in files):
            with hub_errors(self.repo_id):
                snapshot_download(self.repo_id, revision=self.revision, allow_patterns=files)

    def _no_safetensors(self) -> str:
        if self.repo_id is None:
            pickled = any(file for pattern in _PICKLES for file in self.folder.glob(pattern))
        else:
            with hub_errors(self.repo_id):
                listed = HfApi().list_repo_files(self.repo_id, revision=self.revision)
            pickled = any(name.endswith(tuple(pattern[1:] for pattern in _PICKLES)) for name in listed)
        if not pickled:
            return f"{self.name} has no weights: neither {SINGLE_FILE} nor {INDEX_FILE} is there."
        where = self.folder if self.repo_id is None else self.repo_id
        return (
            f"{self.name} has its weights in pickles, which can run code and are not read. If you trust them, convert "
            f"them: python -c \"from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; n, o = '{where}', "
            "'converted'; M.from_pretrained(n, use_safetensors=False).save_pretrained(o); "
            'T.from_pretrained(n).save_pretrained(o)"'
        )


def open_donor(name: str) -> Donor:
    """Finds a donor and fetches its small files.

    Args:
        name (`str`): Folder, Hub id, or `id@revision`.

    Returns:
        [`Donor`]: The donor; its weights are fetched when they are first asked for.

    Raises:
        LayerTracerError: There is no such model.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise LayerTracerError(f"{name} holds no model: there is no config.json in it.")
        return Donor(name, folder)
    repo_id, _, revision = name.partition("@")
    if folder.is_absolute() or name.startswith((".", "~")) or repo_id.count("/") > 1:
        raise LayerTracerError(f"No such folder: {name}.")
    with hub_errors(repo_id):
        place = Path(snapshot_download(repo_id, revision=revision or None, allow_patterns=list(_SMALL_FILES)))
    if not (place / "config.json").is_file():
        raise LayerTracerError(f"{name} holds no model: there is no config.json in it.")
    return Donor(name, place, repo_id, place.name)
