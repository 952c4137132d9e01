"""Reading weights: safetensors without its package, and pretrained weights into a network that has its own head."""

import json
import math
import os
import pickle
from pathlib import Path

import torch
import torchvision
from torch import nn

from classifier.mistake import Mistake

TENSOR_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_safetensors(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Read a .safetensors file without the safetensors package, which not every image has.

    Raises OSError where it cannot be read, ValueError where it is not such a file.
    """
    data = Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError(f"{path} is no safetensors file: its header does not fit into its {len(data)} bytes")
    try:
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        body = memoryview(data)[8 + length :]
        return {name: _tensor(body, **entry) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error


def _tensor(body: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> torch.Tensor:
    kind, (start, end) = TENSOR_TYPES[dtype], data_offsets
    if not 0 <= start <= end <= len(body):
        raise ValueError(f"offsets {data_offsets} lie outside the file")
    if end - start != math.prod(shape) * kind.itemsize:
        raise ValueError(f"shape {shape} of {dtype} does not take the {end - start} bytes of offsets {data_offsets}")
    if start == end:
        return torch.empty(shape, dtype=kind)
    # A copy: the format does not promise that values are aligned within the file.
    return torch.frombuffer(bytearray(body[start:end]), dtype=kind).reshape(shape)


def load_weights(network: nn.Module, head: str, backbone: str, weights: str) -> None:
    """Load pretrained weights into all of a network but its head, whose dotted name is `head`.

    weights: "none" leaves the random start, "imagenet" takes torchvision's (downloaded where not yet cached), anything
    else is the path of a .safetensors file or of a state dict saved by torch. Raises Mistake where they do not fit.
    """
    if weights == "none":
        return
    state = _imagenet(backbone) if weights == "imagenet" else _read_state(Path(weights))
    expected = {name: value for name, value in network.state_dict().items() if not name.startswith(f"{head}.")}
    # Old files lack BatchNorm's step counter, which nothing here reads.
    absent = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    if absent:
        raise Mistake(f"--weights {weights} does not fit {backbone}: {absent[0]} is missing ({len(absent)} in all)")
    for name, value in expected.items():
        if name in state and state[name].shape != value.shape:
            shapes = f"{list(state[name].shape)}, not {list(value.shape)}"
            raise Mistake(f"--weights {weights} does not fit {backbone} at this --image-size: {name} is {shapes}")
    network.load_state_dict({name: state[name] for name in expected if name in state}, strict=False)


def _imagenet(backbone: str) -> dict[str, torch.Tensor]:
    weights = torchvision.models.get_model_weights(backbone).DEFAULT
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError.
        raise Mistake(
            f"--weights imagenet: cannot download {weights.url} ({error}); "
            "use --weights none, or --weights PATH with a file fetched elsewhere"
        ) from error


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        # weights_only: a pickle from elsewhere must not run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise Mistake(f"--weights {path}: there is no such file; imagenet, none or a path is expected") from error
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise Mistake(f"--weights {path}: no readable weights: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise Mistake(f"--weights {path}: not a state dict (names to tensors)")
    return state
