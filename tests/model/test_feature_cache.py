"""The feature cache: kept between runs, shared by writers, and never what ends a training."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from classifier.feature_cache import DATABASE, FeatureCache
from classifier.mistake import Mistake

MODEL = Path(__file__).resolve().parents[2] / "model"
GB = 10**9


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def row(number: int, size: int = 4096) -> bytes:
    return random.Random(number).randbytes(size)


def rows(numbers, size: int = 4096) -> dict[bytes, bytes]:
    return {key(number): row(number, size) for number in numbers}


def fill(folder: Path, count: int) -> Path:
    """A cache with that many rows; the path of its file."""
    with FeatureCache(folder, GB) as cache:
        cache.put(rows(range(count)))
    return folder / DATABASE


def child(code: str, *arguments: object, **keywords) -> subprocess.Popen:
    """Python code in a process group of its own, with the functions of this file."""
    source = f"import sys; sys.path[:0] = [{str(MODEL)!r}, {str(Path(__file__).parent)!r}]\n"
    source += f"from test_feature_cache import *\nfrom pathlib import Path\n{code}"
    command = [sys.executable, "-c", source, *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, **keywords)


def test_rows_are_kept_between_runs(tmp_path):
    fill(tmp_path / "deep" / "folder", 5)
    with FeatureCache(tmp_path / "deep" / "folder", GB) as cache:
        assert cache.get([key(2), key(9), key(4)]) == rows([2, 4])
        assert "5 rows" in str(cache) and "1000 MB" in str(cache)


def test_a_row_can_be_put_again(tmp_path):
    fill(tmp_path, 3)
    with FeatureCache(tmp_path, GB) as cache:
        cache.put({key(1): b"new"})
        assert cache.get([key(0), key(1)]) == {key(0): row(0), key(1): b"new"}


def test_two_processes_write_at_once(tmp_path):
    code = """
cache = FeatureCache(Path(sys.argv[1]), GB)
for start in range(0, 600, 6):
    cache.put(rows(range(start, start + 6), 900))
    assert cache.get([key(start)])
    # Both write the even ones, and each some of its own.
    cache.put(rows([start * 1000 + int(sys.argv[2])], 900))
assert cache._own
"""
    children = [child(code, tmp_path, number) for number in (1, 2)]
    for process in children:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0 and not errors, errors
    expected = rows([*range(600), *(start * 1000 + n for start in range(0, 600, 6) for n in (1, 2))], 900)
    with FeatureCache(tmp_path, GB) as cache:
        assert cache.get(list(expected)) == expected


def test_killed_while_it_writes_a_batch_is_there_or_not(tmp_path):
    code = """
cache = FeatureCache(Path(sys.argv[1]), GB)
while True:
    for start in range(0, 1000, 10):
        cache.put(rows(range(start, start + 10), 900))
"""
    for attempt in range(4):
        process = child(code, tmp_path)
        time.sleep(0.5)  # At least until something is written, below; then at any moment.
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (tmp_path / DATABASE).exists():
            time.sleep(0.05)
        time.sleep(random.Random(attempt).uniform(0, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with FeatureCache(tmp_path, GB) as cache:
        for start in range(0, 1000, 10):
            assert len(cache.get([key(number) for number in range(start, start + 10)])) in (0, 10)
        cache.put(rows([0]))
        assert cache.get([key(0)]) == rows([0])
    assert not (tmp_path / f"{DATABASE}.damaged").exists()


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        # From the second page on: the header alone is whole.
        file.seek(4096)
        file.write(random.Random(0).randbytes(path.stat().st_size - 8192))


def text(path: Path) -> None:
    path.write_text("no database\n" * 1000)


def foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (thing)")


@pytest.mark.parametrize("damage", [truncated, overwritten, text, foreign])
def test_a_damaged_file_is_put_aside_and_begun_anew(tmp_path, capsys, damage):
    damage(fill(tmp_path, 200))
    damaged = (tmp_path / DATABASE).read_bytes()
    with FeatureCache(tmp_path, GB) as cache:
        found = cache.get([key(number) for number in range(200)])
        assert found.items() <= rows(range(200)).items()
        cache.put(rows(range(200)))
        assert cache.get([key(number) for number in range(200)]) == rows(range(200))
    assert "begun anew" in capsys.readouterr().err
    assert len((tmp_path / f"{DATABASE}.damaged").read_bytes()) >= len(damaged) // 2
    fill(tmp_path, 1)
    assert not capsys.readouterr().err


def test_damage_that_another_process_has_put_aside_is_not_put_aside_again(tmp_path, capsys):
    text(fill(tmp_path, 20))
    slow = FeatureCache.__new__(FeatureCache)
    slow._path, slow._own, slow._inode = tmp_path / DATABASE, None, (tmp_path / DATABASE).stat().st_ino
    fill(tmp_path, 20)
    slow._set_aside()
    with FeatureCache(tmp_path, GB) as cache:
        assert len(cache.get([key(number) for number in range(20)])) == 20


def test_a_row_that_differs_from_its_checksum_is_not_there(tmp_path):
    with sqlite3.connect(fill(tmp_path, 3)) as connection:
        connection.execute("UPDATE features SET row = zeroblob(4096) WHERE id = 2")
    with FeatureCache(tmp_path, GB) as cache:
        assert cache.get([key(0), key(1), key(2)]) == rows([0, 2])
        cache.put(rows([1]))
        assert cache.get([key(1)]) == rows([1])


def test_its_size_is_bounded_and_what_was_used_longest_ago_goes_first(tmp_path):
    limit = 4_000_000
    for start in (0, 500, 1000):
        with FeatureCache(tmp_path, limit) as cache:
            for number in range(start, start + 500, 10):
                cache.put(rows(range(number, number + 10)))
            # The first run's first rows are the ones that are used again and again.
            cache.get([key(number) for number in range(20)])
        assert (tmp_path / DATABASE).stat().st_size <= limit
    with FeatureCache(tmp_path, limit) as cache:
        found = cache.get([key(number) for number in range(1500)])
    assert rows([*range(20), *range(1000, 1500)]).items() <= found.items() and len(found) < 1000


def test_a_lower_bound_shrinks_the_file(tmp_path):
    path = fill(tmp_path, 1000)
    assert path.stat().st_size > 4_000_000
    FeatureCache(tmp_path, 3_000_000).__exit__()
    assert path.stat().st_size <= 3_000_000
    with FeatureCache(tmp_path, GB) as cache:
        assert cache.get([key(999)])


def test_a_run_that_needs_more_than_the_bound_keeps_what_fits(tmp_path, capsys):
    with FeatureCache(tmp_path, 500_000) as cache:
        for number in range(200):
            cache.put(rows([number]))
    assert "0.0005 GB of --feature-cache-gb are used up" in capsys.readouterr().err
    with FeatureCache(tmp_path, GB) as cache:
        assert 50 < len(cache.get([key(number) for number in range(200)])) < 200


def test_a_full_disk_is_said_and_survived(tmp_path):
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
with FeatureCache(Path(sys.argv[1]), GB) as cache:
    for number in range(200):
        cache.put(rows([number]))
"""
    process = child(code, tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors.count("\n") == 1 and "training goes on without keeping features" in errors
    with FeatureCache(tmp_path, GB) as cache:
        found = cache.get([key(number) for number in range(200)])
        assert len(found) > 20 and found.items() <= rows(range(200)).items()
    assert not (tmp_path / f"{DATABASE}.damaged").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
@pytest.mark.parametrize("size", ["4k", "400k"])
def test_a_really_full_file_system_is_said_and_survived(tmp_path, capsys, size):
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(tmp_path)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        with FeatureCache(tmp_path, GB) as cache:
            for number in range(200):
                cache.put(rows([number]))
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1 and "full" in errors
        with FeatureCache(tmp_path, GB) as cache:
            found = cache.get([key(number) for number in range(200)])
            assert found.items() <= rows(range(200)).items() and (size == "4k" or found)
        assert not (tmp_path / f"{DATABASE}.damaged").exists()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_folder_that_cannot_be_made_is_said_and_survived(tmp_path, capsys):
    (tmp_path / "file").touch()
    with FeatureCache(tmp_path / "file" / "folder", GB) as cache:
        cache.put(rows([1]))
        assert cache.get([key(1)]) == {}
        assert str(cache) == "no feature cache is kept"
    assert "cannot be opened" in capsys.readouterr().err


def test_a_given_folder_is_read_first_and_never_written(tmp_path, capsys):
    given = fill(tmp_path / "given", 3)
    content = given.read_bytes()
    given.chmod(0o444)
    given.parent.chmod(0o555)
    with FeatureCache(tmp_path / "own", GB, tmp_path / "given") as cache:
        cache.put(rows([3]))
        assert cache.get([key(number) for number in range(5)]) == rows(range(4))
    assert given.read_bytes() == content and [path.name for path in given.parent.iterdir()] == [DATABASE]
    with FeatureCache(None, GB, tmp_path / "given") as cache:
        assert cache.get([key(0)]) == rows([0])
    assert not capsys.readouterr().err


@pytest.mark.parametrize("damage", [truncated, overwritten, text, foreign])
def test_a_damaged_given_file_is_said_and_left_alone(tmp_path, capsys, damage):
    given = fill(tmp_path / "given", 200)
    damage(given)
    content = given.read_bytes()
    with FeatureCache(tmp_path / "own", GB, tmp_path / "given") as cache:
        found = cache.get([key(number) for number in range(200)])
        assert found.items() <= rows(range(200)).items()
        cache.put(rows(range(200)))
        assert cache.get([key(number) for number in range(200)]) == rows(range(200))
    assert "--features" in capsys.readouterr().err
    assert given.read_bytes() == content


def test_a_given_folder_without_features_is_a_mistake(tmp_path):
    with pytest.raises(Mistake, match=r"--features .*features\.db"):
        FeatureCache(tmp_path / "own", GB, tmp_path)


def test_a_copy_made_while_it_was_written_is_whole_or_put_aside(tmp_path):
    code = """
cache = FeatureCache(Path(sys.argv[1]), GB)
while True:
    for start in range(0, 1000, 10):
        cache.put(rows(range(start, start + 10), 900))
"""
    process = child(code, tmp_path / "own")
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (tmp_path / "own" / DATABASE).exists():
            time.sleep(0.05)
        for copy in range(5):
            time.sleep(0.1)
            folder = tmp_path / f"copy-{copy}"
            folder.mkdir()
            shutil.copyfile(tmp_path / "own" / DATABASE, folder / DATABASE)
            with FeatureCache(folder, GB) as cache:
                expected = rows(range(500), 900)
                for _ in range(3):
                    # What is torn may come to light with any of these; what is found is right.
                    found = cache.get(list(expected))
                    assert found.items() <= expected.items()
                    cache.put(expected)
                assert found == expected
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
