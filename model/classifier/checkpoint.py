"""What a killed training goes on from: one file, replaced as a whole after each epoch."""

import hashlib
import sys
from io import BytesIO
from pathlib import Path

import torch

from classifier.archive import write_atomically

DIGEST_BYTES = hashlib.sha256().digest_size


class Checkpoint:
    """The file `checkpoint.pt` of a folder: the sha256 of what it continues, that of its content, and its content.

    fingerprint: of all that the result depends on. Whatever another training left there is not loaded.
    """

    def __init__(self, folder: Path, fingerprint: str):
        self.path = folder / "checkpoint.pt"
        self._fingerprint = hashlib.sha256(fingerprint.encode()).digest()

    def load(self) -> dict | None:
        """What was saved last; None, with a word on stderr, for a file that is torn or of another training."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        fingerprint, digest = data[:DIGEST_BYTES], data[DIGEST_BYTES : 2 * DIGEST_BYTES]
        content = memoryview(data)[2 * DIGEST_BYTES :]
        if hashlib.sha256(content).digest() != digest:
            print(f"{self.path} is damaged: starting without it", file=sys.stderr)
        elif fingerprint != self._fingerprint:
            print(f"{self.path} is of another training (data, flags or code): starting without it", file=sys.stderr)
        else:
            # weights_only: what lies in a folder that others write to must not run code.
            return torch.load(BytesIO(content), weights_only=True)
        return None

    def save(self, state: dict) -> None:
        """Replace what was saved before. state: tensors, numbers, strings, and containers of them; raises OSError."""
        content = BytesIO()
        torch.save(state, content)
        digest = hashlib.sha256(content.getbuffer()).digest()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, self._fingerprint, digest, content.getbuffer())

    def remove(self) -> None:
        """Forget it: the training is complete, or is to begin anew."""
        self.path.unlink(missing_ok=True)
