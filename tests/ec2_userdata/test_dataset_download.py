"""dataset.download against S3 (moto): only what the manifest vouches for is taken."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

SOURCE = Path(__file__).resolve().parents[2] / "ec2_userdata" / "dataset.py"
_spec = importlib.util.spec_from_file_location("ec2_dataset", SOURCE)
dataset = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(dataset)

BUCKET = "artifacts"
FILES = {"red/1.png": b"red", "train/blue/2 ü.png": b"blue", "empty": b""}


@pytest.fixture
def s3():
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield client


def put(s3, manifest: object, files=FILES) -> None:
    for path, content in files.items():
        s3.put_object(Bucket=BUCKET, Key=f"datasets/d/{path}", Body=content)
    body = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    s3.put_object(Bucket=BUCKET, Key="datasets/d/manifest.json", Body=body)


def manifest_of(files=FILES) -> dict:
    return {
        "files": {
            path: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for path, content in files.items()
        }
    }


def on_disk(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_brings_each_file_and_nothing_else(s3, tmp_path):
    put(s3, manifest_of())
    s3.put_object(Bucket=BUCKET, Key="datasets/d/red/left-over.png", Body=b"of an earlier upload")
    assert dataset.download(s3, BUCKET, "d", tmp_path) == len(FILES)
    assert on_disk(tmp_path) == FILES


def test_fetches_again_only_what_is_damaged(s3, tmp_path):
    put(s3, manifest_of())
    dataset.download(s3, BUCKET, "d", tmp_path)
    (tmp_path / "red/1.png").write_bytes(b"torn")
    s3.delete_object(Bucket=BUCKET, Key="datasets/d/train/blue/2 ü.png")
    assert dataset.download(s3, BUCKET, "d", tmp_path) == len(FILES)
    assert on_disk(tmp_path) == FILES


@pytest.mark.fault
@pytest.mark.parametrize("path", ["../x.png", "/etc/x.png", "red/../../x.png"])
def test_nothing_is_written_outside(s3, tmp_path, path):
    manifest = manifest_of()
    manifest["files"][path] = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}
    put(s3, manifest)
    with pytest.raises(dataset.DatasetError, match="leads out of the data set"):
        dataset.download(s3, BUCKET, "d", tmp_path / "data")
    assert on_disk(tmp_path) == {}


@pytest.mark.fault
def test_a_missing_object_is_named(s3, tmp_path):
    put(s3, manifest_of())
    s3.delete_object(Bucket=BUCKET, Key="datasets/d/red/1.png")
    with pytest.raises(dataset.DatasetError, match=r"s3://artifacts/datasets/d/red/1\.png cannot be read"):
        dataset.download(s3, BUCKET, "d", tmp_path)


@pytest.mark.fault
def test_a_changed_object_is_named_and_not_kept(s3, tmp_path):
    put(s3, manifest_of(), FILES | {"red/1.png": b"rod"})
    with pytest.raises(dataset.DatasetError, match=r"datasets/d/red/1\.png is not what the manifest says"):
        dataset.download(s3, BUCKET, "d", tmp_path)
    assert "red/1.png" not in on_disk(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.fault
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(manifest=JSON | st.builds(lambda files: {"files": files}, JSON) | st.binary(max_size=20))
def test_no_manifest_but_a_whole_one_is_taken(s3, tmp_path, manifest):
    put(s3, manifest, files={})
    with pytest.raises(dataset.DatasetError, match="manifest"):
        dataset.download(s3, BUCKET, "d", tmp_path)
    assert on_disk(tmp_path) == {}
