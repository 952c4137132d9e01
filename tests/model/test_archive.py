"""Packing: the same bytes each time, and no archive without a check."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tarfile

import pytest
import torch
from classifier.archive import pack, prepare_folder, write_atomically
from classifier.export import ExportError, check_onnx, export_onnx
from torch import nn


def test_the_same_folder_packs_to_the_same_bytes(trained, tmp_path):
    copy = shutil.copytree(trained.folder, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    (copy / "model.json").chmod(0o600)
    (copy / "stray.txt").write_text("left by something else")
    manifest = pack(copy, tmp_path / "again" / "another-name.tar.gz")
    assert (tmp_path / "again" / "another-name.tar.gz").read_bytes() == trained.archive.read_bytes()
    assert manifest["archive"]["bytes"] == trained.archive.stat().st_size


def test_entries_carry_nothing_of_the_machine(trained):
    assert gzip.decompress(trained.archive.read_bytes())[:7] == b"code/cl"
    with tarfile.open(trained.archive) as tar:
        entries = tar.getmembers()
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
    assert {(entry.mtime, entry.uid, entry.gid, entry.mode, entry.uname) for entry in entries} == {(0, 0, 0, 0o644, "")}
    onnx = (trained.folder / "model.onnx").read_bytes()
    assert b"site-packages" not in onnx and b"/model/" not in onnx


def test_an_old_manifest_does_not_outlive_a_failed_packing(trained, tmp_path):
    archive = tmp_path / "model.tar.gz"
    pack(trained.folder, archive)
    incomplete = tmp_path / "incomplete"
    incomplete.mkdir()
    with pytest.raises(FileNotFoundError):
        pack(incomplete, archive)
    assert not (tmp_path / "manifest.json").exists()


def test_a_network_that_answers_differently_is_not_exported(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).eval()
    export_onnx(network, 4, tmp_path / "model.onnx")
    pixels = torch.randn(3, 3, 4, 4)
    assert check_onnx(tmp_path / "model.onnx", network, [pixels]) < 1e-5
    with torch.no_grad():
        network[1].bias += 0.001
    with pytest.raises(ExportError, match="differ"):
        check_onnx(tmp_path / "model.onnx", network, [pixels])
    with pytest.raises(ExportError, match="no picture"):
        check_onnx(tmp_path / "model.onnx", network, [])


def test_writing_is_all_or_nothing(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_only_the_half_written_files_of_processes_that_are_gone_are_removed(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    # In a container, a process often has the number of its forerunner.
    left = [tmp_path / f".model.onnx.{process}.partial" for process in (gone.pid, os.getpid(), 10**30)]
    kept = [tmp_path / f".model.onnx.{os.getppid()}.partial", tmp_path / ".notes.partial", tmp_path / "model.onnx"]
    for path in (*left, *kept):
        path.write_text("half")
    prepare_folder(tmp_path)
    assert set(tmp_path.iterdir()) == set(kept)


def test_a_folder_that_is_not_there_is_made(tmp_path):
    prepare_folder(tmp_path / "some" / "where")
    assert (tmp_path / "some" / "where").is_dir()
