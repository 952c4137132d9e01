"""The processes that train together: which one this is, and how rows that each computed reach them all."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

# The port that SageMaker's own launchers use between the hosts of a job.
PORT = 7777
# One rank may find all its features in a cache while another computes for hours. A rank that died is noticed at once.
TIMEOUT = timedelta(hours=6)


@dataclass(frozen=True)
class Ranks:
    """This process is number `rank` of `world`; alone, without torch.distributed, by default."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes what exists once: lines, archives, reports."""
        return self.rank == 0

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """[n, ...] of every rank, each with an n of its own, as one [sum of n, ...] in the order of ranks, on each."""
        if self.world == 1:
            return rows
        count = torch.tensor([len(rows)])
        counts = [torch.empty_like(count) for _ in range(self.world)]
        distributed.all_gather(counts, count)
        # Gloo gathers equal shapes only.
        padded = rows.new_zeros(int(max(counts)), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        distributed.all_gather(parts, padded)
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


ALONE = Ranks()


@contextmanager
def joined(environment: Mapping[str, str]) -> Iterator[Ranks]:
    """Join the other processes of this training, and leave them in the end.

    torchrun's RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT count first; else SageMaker's SM_HOSTS (a JSON list) and
    SM_CURRENT_HOST, one process a host; else there is only this process.
    """
    keywords = _torchrun(environment) or _sagemaker(environment)
    if keywords is None:
        yield ALONE
        return
    distributed.init_process_group("gloo", timeout=TIMEOUT, **keywords)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def _torchrun(environment: Mapping[str, str]) -> dict | None:
    world = int(environment.get("WORLD_SIZE", 1))
    if "RANK" not in environment or world == 1:
        return None
    # torchrun gives each process one thread unless told otherwise, on however many cores.
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // int(environment.get("LOCAL_WORLD_SIZE", 1))))
    return {"init_method": "env://"}


def _sagemaker(environment: Mapping[str, str]) -> dict | None:
    hosts = sorted(json.loads(environment.get("SM_HOSTS", "[]")))
    if len(hosts) < 2:
        return None
    if interface := environment.get("SM_NETWORK_INTERFACE_NAME"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    rank = hosts.index(environment["SM_CURRENT_HOST"])
    return {"init_method": f"tcp://{hosts[0]}:{PORT}", "rank": rank, "world_size": len(hosts)}
