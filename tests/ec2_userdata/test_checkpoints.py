"""A folder of checkpoints in S3: what is restored is what one sync brought there, whole, or nothing."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import threading
from pathlib import Path

import pytest

_source = Path(__file__).resolve().parents[2] / "ec2_userdata" / "checkpoints.py"
_spec = importlib.util.spec_from_file_location("ec2_checkpoints", _source)
module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(module)

BUCKET, PREFIX = "checkpoints", "trainer/checkpoints/run/"
NOTE = {"elapsed_seconds": 5.0, "instance_id": "i-1"}


@pytest.fixture
def s3(account):
    client = account[1]["s3"]
    client.create_bucket(Bucket=BUCKET)
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    return client


@pytest.fixture
def opened(s3, tmp_path):
    """opened("box") -> the checkpoints of a box with a folder of its own."""

    def open_(box: str):
        folder = tmp_path / box
        folder.mkdir(exist_ok=True)
        return module.Checkpoints(s3, BUCKET, PREFIX, "arn:aws:kms:us-east-1:123456789012:key/k", folder), folder

    return open_


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.partial")
    part.write_text(text)
    os.replace(part, path)


def uploads(s3) -> int:
    return len(s3.list_objects_v2(Bucket=BUCKET, Prefix=PREFIX).get("Contents", []))


def test_a_new_box_gets_what_the_last_one_had(opened):
    first, folder = opened("first")
    put(folder / "checkpoint.pt", "epoch 1")
    put(folder / "deep/er", "more")
    (folder / ".half.partial").write_text("half")
    assert first.sync(NOTE) is True
    put(folder / "checkpoint.pt", "epoch 2")
    (folder / "deep/er").unlink()
    assert first.sync({**NOTE, "elapsed_seconds": 9.0}) is True

    second, copy = opened("second")
    assert second.manifest["elapsed_seconds"] == 9.0
    assert second.restore() == 1
    assert [path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()] == ["checkpoint.pt"]
    assert (copy / "checkpoint.pt").read_text() == "epoch 2"


def test_what_did_not_change_is_not_sent_again(opened, s3):
    checkpoints, folder = opened("box")
    put(folder / "checkpoint.pt", "epoch 1")
    assert [checkpoints.sync(NOTE), checkpoints.sync(NOTE)] == [True, False]
    again, _ = opened("box")  # as after a reboot
    before = uploads(s3)
    assert again.sync(NOTE) is False
    assert uploads(s3) == before == 2


@pytest.mark.fault
def test_a_sync_that_is_cut_short_leaves_the_one_before(opened, monkeypatch):
    first, folder = opened("first")
    put(folder / "checkpoint.pt", "epoch 1")
    first.sync(NOTE)
    put(folder / "checkpoint.pt", "epoch 2")
    monkeypatch.setattr(first._s3, "put_object", lambda **_: (_ for _ in ()).throw(OSError("pulled")))
    with pytest.raises(OSError, match="pulled"):
        first.sync(NOTE)
    monkeypatch.undo()
    second, copy = opened("second")
    assert second.restore() == 1
    assert (copy / "checkpoint.pt").read_text() == "epoch 1"
    assert first.sync(NOTE) is True  # and is made up for
    third, copy = opened("third")
    assert third.restore() == 1
    assert (copy / "checkpoint.pt").read_text() == "epoch 2"


@pytest.mark.fault
@pytest.mark.parametrize("body", [b"", b"epoch 3"])
def test_one_damaged_file_and_nothing_is_restored(opened, s3, body, capsys):
    first, folder = opened("first")
    put(folder / "a", "a")
    put(folder / "z.pt", "epoch 1")
    first.sync(NOTE)
    s3.put_object(Bucket=BUCKET, Key=PREFIX + first.manifest["files"]["z.pt"]["sha256"], Body=body)
    second, copy = opened("second")
    assert second.restore() == 0
    assert [path.name for path in copy.iterdir() if not path.name.startswith(".")] == []
    assert "z.pt in S3 is not what its manifest says" in capsys.readouterr().out


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"files": []}', b'{"files": {"a": 1}}'])
def test_a_manifest_that_is_none_is_taken_for_none(opened, s3, body):
    s3.put_object(Bucket=BUCKET, Key=PREFIX + "manifest.json", Body=body)
    checkpoints, _ = opened("box")
    assert checkpoints.manifest == {"files": {}}


@pytest.mark.fault
@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", ""])
def test_a_manifest_that_leads_out_of_the_folder_is_refused(opened, name, tmp_path):
    checkpoints, _ = opened("box")
    checkpoints.manifest = {"files": {name: {"sha256": "0" * 64}}}
    with pytest.raises(ValueError, match="out of the folder"):
        checkpoints.restore()


def test_a_database_is_copied_whole_while_it_is_written_to(opened):
    """Every row has its twin in another table, of the same transaction: half a copy would part them."""
    first, folder = opened("first")
    path = folder / "features/features.db"
    path.parent.mkdir()
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    database.executescript("PRAGMA journal_mode=WAL; CREATE TABLE a (x); CREATE TABLE b (x);")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            database.executescript("BEGIN; INSERT INTO a VALUES (zeroblob(2000)); INSERT INTO b VALUES (1); COMMIT;")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            first.sync(NOTE, everything=True)
            second, copy = opened(f"copy-{number}")
            assert second.restore() == 1
            restored = sqlite3.connect(copy / "features/features.db")
            assert restored.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            rows = [restored.execute(f"SELECT count(*) FROM {table}").fetchone() for table in "ab"]
            assert rows[0] == rows[1]
            restored.close()
    finally:
        stop.set()
        writer.join()
        database.close()


def test_a_database_is_copied_with_each_new_checkpoint_and_else_only_now_and_then(opened, s3):
    checkpoints, folder = opened("box")
    database = sqlite3.connect(folder / "features.db", isolation_level=None)
    database.execute("CREATE TABLE a (x)")
    assert checkpoints.sync(NOTE) is True
    database.execute("INSERT INTO a VALUES (1)")
    assert checkpoints.sync(NOTE) is False
    put(folder / "checkpoint.pt", "epoch 1")
    before = checkpoints.manifest["files"]["features.db"]
    assert checkpoints.sync(NOTE) is True
    assert checkpoints.manifest["files"]["features.db"] != before
    count = uploads(s3)
    put(folder / "checkpoint.pt", "epoch 2")
    assert checkpoints.sync(NOTE) is True
    assert uploads(s3) == count + 1  # the checkpoint alone: the database is as it was
    database.close()
