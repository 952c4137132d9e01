"""Write a file whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from capacity.errors import UserError


def write(path: Path, content: bytes) -> None:
    """Write beside a file, then put it in its place. Raises UserError where the folder cannot be written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        beside.unlink(missing_ok=True)
