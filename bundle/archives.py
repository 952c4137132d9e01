"""Archives whose bytes depend on nothing but names and contents.

Sorted names, one fixed time, one mode, no owner, and no compression: deflate's output differs between zlib and its
successors, so that the same sources would be a change in Terraform's plan on another machine. They are small.
"""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

MODE = 0o644
EARLIEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
LARGEST_STORED_BLOCK = 0xFFFF


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """A zip file of `files`, archive name -> content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, EARLIEST_ZIP_TIME)
            entry.create_system = 3  # Unix on every machine, else the mode is not read
            entry.external_attr = MODE << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def tar_gz_bytes(files: Mapping[str, bytes]) -> bytes:
    """A .tar.gz file of `files`, archive name -> content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), MODE
            archive.addfile(entry, io.BytesIO(content))
    return _stored_gzip(buffer.getvalue())


def write_if_changed(path: Path, content: bytes) -> bool:
    """Puts `content` at `path` in one step, unless it is there already. Returns whether it wrote."""
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, path)
    return True


def _stored_gzip(content: bytes) -> bytes:
    """RFC 1952 around RFC 1951's stored blocks; `content` must not be empty."""
    header = b"\x1f\x8b\x08" + bytes(6) + b"\xff"  # deflate, no flags, no time, unknown system
    blocks = []
    for start in range(0, len(content), LARGEST_STORED_BLOCK):
        block = content[start : start + LARGEST_STORED_BLOCK]
        last = start + LARGEST_STORED_BLOCK >= len(content)
        blocks += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    return header + b"".join(blocks) + struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)
