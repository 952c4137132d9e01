"""Several processes as one: who is who, and rows that reach all."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from classifier.ranks import ALONE, Ranks, joined

MODEL = Path(__file__).resolve().parents[2] / "model"
GATHER = """
import os, sys
sys.path.insert(0, sys.argv[1])
import torch
from classifier.ranks import joined
with joined(os.environ) as ranks:
    assert ranks.world == 2 and ranks.leads == (ranks.rank == 0)
    for kind in (torch.float32, torch.float16, torch.int64, torch.uint8):
        rows = torch.arange(6).reshape(3, 2).to(kind)
        assert torch.equal(ranks.gather(rows[:2] if ranks.leads else rows[2:]), rows)
        assert torch.equal(ranks.gather(rows[:0] if ranks.leads else rows), rows)
        assert ranks.gather(rows[:0]).shape == (0, 2)
    # One write, because torchrun's processes share the stream.
    sys.stdout.write(f"rank {ranks.rank} has {torch.get_num_threads()}\\n")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_all(commands: list[list], environments: list[dict]) -> list[str]:
    """Run processes at once, each in a group of its own, to their end: what each printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [
        subprocess.Popen(list(map(str, command)), env=inherited | own, start_new_session=True, **pipes)
        for command, own in zip(commands, environments, strict=True)
    ]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)
    return outputs


def torchrun(*arguments: object) -> list:
    flags = ["--nproc-per-node", 2, "--master-addr", "127.0.0.1", "--master-port", free_port()]
    return [sys.executable, "-m", "torch.distributed.run", *flags, *arguments]


def sagemaker_hosts() -> list[dict]:
    """The environment of two hosts of a job that was started without a launcher."""
    hosts = ["127.0.0.2", "127.0.0.1"]
    return [
        {"SM_HOSTS": json.dumps(hosts), "SM_CURRENT_HOST": host, "SM_NETWORK_INTERFACE_NAME": "lo"} for host in hosts
    ]


def test_alone_nothing_is_joined():
    with joined({"SM_HOSTS": '["algo-1"]', "SM_CURRENT_HOST": "algo-1"}) as ranks:
        assert ranks == ALONE == Ranks(0, 1) and ranks.leads
        assert not torch.distributed.is_initialized()
        rows = torch.ones(3, 2)
        assert ranks.gather(rows) is rows
    with joined({"RANK": "0", "WORLD_SIZE": "1"}) as ranks:
        assert ranks == ALONE


@pytest.mark.slow
def test_torchrun_joins_two_processes(tmp_path):
    (tmp_path / "gather.py").write_text(GATHER)
    (output,) = run_all([torchrun(tmp_path / "gather.py", MODEL)], [{}])
    # Not torchrun's one thread a process, but each an equal share of the cores.
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert {f"rank 0 has {threads}", f"rank 1 has {threads}"} <= set(output.splitlines())


def test_sagemakers_hosts_are_enough():
    outputs = run_all([[sys.executable, "-c", GATHER, MODEL]] * 2, sagemaker_hosts())
    # Sorted by name, whatever order they are listed in.
    assert "rank 1 has" in outputs[0] and "rank 0 has" in outputs[1]


@pytest.mark.slow
def test_a_rank_that_dies_is_noticed():
    dying = GATHER.replace(
        "    assert ranks.world == 2", "    if not ranks.leads:\n        os._exit(3)\n    assert ranks.world == 2"
    )
    with pytest.raises(AssertionError, match=r"\[3, 1\]"):
        run_all([[sys.executable, "-c", dying, MODEL]] * 2, sagemaker_hosts())


# The features of sys.argv[2]'s pictures, with a cache below sys.argv[3], written to it as result-RANK.
EXTRACT = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from classifier.data import load_splits
from classifier.features import Extraction, extract
from classifier.network import build
from classifier.preprocessing import Preprocessing
from classifier.ranks import joined
from classifier.samples import Augmentation
pictures, folder = map(Path, sys.argv[2:])
torch.manual_seed(0)
network = build("resnet18", 3, 32)
splits = load_splits(pictures, None, None, seed=0)
(folder / "damaged.png").write_bytes(b"damaged")
splits.train.paths[5] = folder / "damaged.png"
with joined(os.environ) as ranks:
    asked = Extraction(views=3, cache=folder / os.environ.get("SM_CURRENT_HOST", ""), precision="fp32")
    preprocessing = Preprocessing(32, 32)
    found = extract(network, splits, preprocessing, Augmentation(), asked, strict=False, seed=0, ranks=ranks)
    views = [samples._views for samples in (found.train, found.validation, found.test)]
    assert len(found.splits.train) == len(splits.train) - 1
    torch.save([*views, found.computed, found.from_cache], folder / f"result-{ranks.rank}")
"""


def features(folder: Path, rank: int) -> tuple[list[torch.Tensor], int, int]:
    *views, computed, cached = torch.load(folder / f"result-{rank}")
    return views, computed, cached


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "sagemaker"])
def test_two_processes_give_the_features_of_one_bit_for_bit(textures, tmp_path, launcher):
    (tmp_path / "extract.py").write_text(EXTRACT)
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir(), together.mkdir()
    run_all([[sys.executable, tmp_path / "extract.py", MODEL, textures, alone]], [{}])
    command = [tmp_path / "extract.py", MODEL, textures, together]
    if launcher == "torchrun":
        (output,) = run_all([torchrun(*command)], [{}])
    else:
        output = "".join(run_all([[sys.executable, *command]] * 2, sagemaker_hosts()))
    expected, computed, _ = features(alone, 0)
    assert computed == sum(len(views) * views.shape[1] for views in expected)
    for rank in (0, 1):
        views, both, cached = features(together, rank)
        assert all(map(torch.equal, views, expected)) and (both, cached) == (computed, 0)
    # Of two, one speaks.
    assert output.count("features of ") == output.count("skipped 1 of ") == 1
    # The leader's cache has what the other computed: one process finds everything.
    leader = {} if launcher == "torchrun" else {"SM_CURRENT_HOST": "127.0.0.1"}
    run_all([[sys.executable, *command]], [leader])
    views, again, cached = features(together, 0)
    assert all(map(torch.equal, views, expected)) and (again, cached) == (0, computed)
