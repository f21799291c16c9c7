"""Several processes of one machine that train one participant together, as `torchrun` starts them:
each takes its part of every batch.

The first one speaks with the coordinator and hands each task on; the others make the same steps.
Gradients of the factors are added up (gloo on CPUs, NCCL on GPUs), weighted by each part's share of
the batch, so the step is that of one process but for rounding. The frozen base is whole in each
process, or in shards (`shards`). Nothing is unpickled: what is handed on are bytes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from tequio.core.types import Energy

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

T = TypeVar("T")

WAIT = timedelta(
    days=7
)  # that the others wait for a task; where one process dies, torchrun ends the rest


@dataclass(frozen=True)
class ProcessGroup:
    """This process's place, from 0, among `size`."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    def part(self, batch: Sequence[T]) -> list[T]:
        """This process's part of a batch: every size-th item. Empty where there are fewer."""
        return list(batch[self.rank :: self.size])

    def mesh(self) -> DeviceMesh:
        """The processes as FSDP wants them. All of them call this."""
        from torch.distributed.device_mesh import init_device_mesh

        return init_device_mesh(self.device, (self.size,))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One process after the other is inside, by rank."""
        for rank in range(self.size):
            if rank == self.rank:
                yield
            if self.size > 1:
                dist.barrier()

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes its sum over the processes."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def total(self, value: float) -> float:
        """The sum of a number over the processes."""
        if self.size == 1:
            return value
        both = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(both)
        return float(both)

    def energy(self, own: Energy) -> Energy:
        """That of all processes together, in the time of this one."""
        return own if self.size == 1 else replace(own, joules=self.total(own.joules))

    def end(self) -> None:
        """End a process that has others, when all is done and closed: its libraries are not taken
        down, which not all threads survive.
        """
        if self.size > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    def hand_on(self, data: bytes = b"") -> bytes:
        """The first process's bytes, in every process; empty: there is no more."""
        if self.size == 1:
            return data
        length = torch.tensor([len(data)], dtype=torch.int64, device=self.device)
        dist.broadcast(length, src=0)
        if not int(length):
            return b""
        whole = torch.frombuffer(
            bytearray(data) if data else bytearray(int(length)), dtype=torch.uint8
        )
        whole = whole.to(self.device)
        dist.broadcast(whole, src=0)
        return whole.cpu().numpy().tobytes()


ALONE = ProcessGroup()


@contextmanager
def join_process_group() -> Iterator[ProcessGroup]:
    """The team that torchrun made (its variables RANK, WORLD_SIZE, LOCAL_RANK), or a process
    alone.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size < 2:
        yield ALONE
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpu else "gloo", timeout=WAIT)
    try:
        yield ProcessGroup(dist.get_rank(), size, "cuda" if gpu else "cpu")
        # nobody leaves while another still works: gloo's threads do not always survive that
        dist.barrier()
    finally:
        dist.destroy_process_group()
