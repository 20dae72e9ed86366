"""Writing files so that a crash or a full disk never leaves half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .errors import LayerTracerError


def check_writable(directory: Path) -> None:
    """Refuses a folder that nothing can be written to, before work is done whose result belongs there.

    Args:
        directory (`Path`): The folder; it need not exist, and is not made.

    Raises:
        LayerTracerError: It is a file, or may not be written to.
    """
    place = directory.absolute()
    try:
        while not os.path.exists(place):
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise LayerTracerError(f"Nothing can be written to {directory}: {what}. Name another folder.") from error


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Writes a file under a temporary name beside its place, then renames it.

    Args:
        path (`Path`): Where the file belongs; what stood there survives until the new file is whole.
        content (`bytes` or `Iterable[bytes]`): All of it, or parts that together need not fit into memory.

    Raises:
        LayerTracerError: The folder cannot be written to, or the disk is full.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner may read: give it the mode that open() would have given.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise LayerTracerError(
            f"Could not write {path}: {error.strerror or error}. What stood there before is unchanged."
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
