"""Writing files so that what was there before is replaced whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from facefit.errors import InputError


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes `data` under a temporary name in the same folder and renames it.

    Raises:
        InputError: the folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name[:100]}.", delete=False
        ) as target:
            try:
                target.write(data)
                target.close()
                os.chmod(target.name, 0o644)
                os.replace(target.name, path)
            except BaseException:
                os.unlink(target.name)
                raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{path}: cannot be written ({reason}). Choose another folder, or make room."
        ) from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """As `write_bytes`, UTF-8."""
    write_bytes(path, text.encode())
