"""The folder of a hybrid: complete under its name, or not there."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from transformers import PreTrainedConfig

from ..errors import LayerTracerError
from .donors import Donor


def write_settings(
    folder: Path, config: PreTrainedConfig, architecture: str, tokenizer: Donor, code: Sequence[Path] = ()
) -> None:
    """Writes the configuration, and copies tokenizer, generation settings and code.

    Args:
        folder (`Path`): The hybrid's folder.
        config (`PreTrainedConfig`): Its configuration.
        architecture (`str`): Its class.
        tokenizer ([`Donor`]): Who gives tokenizer, chat template and generation settings.
        code (`Sequence[Path]`, *optional*): The modules of a class that is not transformers'.
    """
    config.architectures = [architecture]
    config.save_pretrained(folder)
    files = [*tokenizer.tokenizer_files(), tokenizer.folder / "generation_config.json"]
    for file in files:
        if file.is_file():
            target = folder / file.relative_to(tokenizer.folder)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
    for module in code:
        shutil.copyfile(module, folder / module.name)


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """A folder beside `out` that gets its name when all went well, and is removed otherwise.

    What a killed run of the same name left is removed first.

    Args:
        out (`Path`): The name it gets.

    Yields:
        `Path`: The folder.

    Raises:
        LayerTracerError: The disk is full, or the place cannot be written to.
    """
    out = out.absolute()
    host = socket.gethostname()
    folder = out.parent / f".{out.name}.{host}-{os.getpid()}.building"
    made = [parent for parent in (out.parent, *out.parent.parents) if not parent.exists()]
    done = False
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in out.parent.glob(f".{out.name}.{host}-*.building"):
            process = left.name.removesuffix(".building").rpartition("-")[2]
            if process.isdigit() and (int(process) == os.getpid() or not psutil.pid_exists(int(process))):
                shutil.rmtree(left)
        folder.mkdir()
        yield folder
        if out.exists():
            out.rmdir()
        folder.rename(out)
        done = True
    except OSError as error:
        raise LayerTracerError(f"Could not write {out}: {error.strerror or error}. Nothing was left there.") from error
    finally:
        if not done:
            shutil.rmtree(folder, ignore_errors=True)
            for parent in made:
                if parent.is_dir() and not any(parent.iterdir()):
                    parent.rmdir()
