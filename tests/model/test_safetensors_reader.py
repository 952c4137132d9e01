"""The safetensors reader against the safetensors package, and against files that lie."""

from __future__ import annotations

import json

import pytest
import torch
from classifier.weights import TENSOR_TYPES, read_safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

SHAPES = st.lists(st.integers(0, 4), max_size=3)
TENSORS = st.builds(
    lambda shape, dtype, seed: torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed)).to(dtype),
    SHAPES,
    st.sampled_from(list(TENSOR_TYPES.values())),
    st.integers(0, 9),
)


def packed(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"), TENSORS))
def test_reads_what_the_package_writes(tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    path.write_bytes(save(tensors, metadata={"format": "pt"}))
    read = read_safetensors(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype and read[name].shape == tensor.shape
        assert torch.equal(read[name], tensor)


@pytest.mark.fault
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_by_name_or_read_whole(tmp_path_factory, data):
    whole = save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.int64)})
    cut = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    path.write_bytes(whole[:cut])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        read_safetensors(path)


@pytest.mark.fault
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 2**64 - 1))
def test_any_bytes_are_refused_with_a_value_error(tmp_path_factory, body, length):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    for content in (body, packed(body), length.to_bytes(8, "little") + body):
        path.write_bytes(content)
        try:
            # Only a header that is an object can describe tensors, and `{}` describes none.
            assert read_safetensors(path) == {}
        except ValueError as error:
            assert "model.safetensors" in str(error)


def entry(**changed: object) -> dict:
    return {"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changed}


@pytest.mark.fault
@pytest.mark.parametrize(
    "header",
    [
        pytest.param(entry(data_offsets=[0, 9]), id="end beyond the file"),
        pytest.param(entry(data_offsets=[-8, 0]), id="negative start"),
        pytest.param(entry(data_offsets=[8, 0]), id="end before start"),
        pytest.param(entry(data_offsets=[0]), id="one offset"),
        pytest.param(entry(data_offsets=[0.0, 8.0]), id="offsets that are no integers"),
        pytest.param(entry(data_offsets=[0, 4]), id="fewer bytes than the shape"),
        pytest.param(entry(data_offsets=[0, 0]), id="no bytes for a shape"),
        pytest.param(entry(data_offsets=[0, 7]), id="no whole number of values"),
        pytest.param(entry(shape=[3]), id="a larger shape"),
        pytest.param(entry(shape=[-1]), id="a shape left to be inferred"),
        pytest.param(entry(shape=[10**30], data_offsets=[0, 0]), id="an absurd shape"),
        pytest.param(entry(dtype="F128"), id="unknown dtype"),
        pytest.param({"weight": {"shape": [2]}}, id="fields missing"),
        pytest.param({"weight": None}, id="an entry that is no object"),
        pytest.param([1, 2], id="a header that is no object"),
        pytest.param(b"{" * 100_000, id="a header nested without end"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, header):
    path = tmp_path / "model.safetensors"
    path.write_bytes(packed(header, b"\0" * 8))
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        read_safetensors(path)
