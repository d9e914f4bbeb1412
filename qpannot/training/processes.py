"""The processes a training is divided among: one for each GPU, on one machine or many.

On one machine this process starts the others. ``torchrun`` and Slurm's ``srun`` start all of them,
on many machines as well; then each calls the training alike, and they find each other by the
environment that these set::

    torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint first:29500 ...
    srun --nodes 2 --ntasks-per-node 4 --gpus-per-node 4 ...

Lightning's own launchers are not used: one runs the whole command again in each process, the other
pickles the trainer, with what shows the progress, into processes that import torchvision before
`import_torchvision` can help them.

The training folder, and the slides, have to be on a disk that all of them see.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import TypeVar

import torch

from qpannot.errors import QpannotError, UsageError
from qpannot.torchvision_import import import_torchvision

import_torchvision()  # before lightning, which imports it by itself

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment  # noqa: E402
from lightning.fabric.plugins.environments.lightning import LightningEnvironment  # noqa: E402
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment  # noqa: E402
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment  # noqa: E402

MAX_WORKERS = 8

JOINED_WITHIN_S = 10.0
"""How long a process may take to end by itself."""


@dataclass(frozen=True)
class Place:
    """Which process this is.

    Parameters
    ----------
    rank
        Among all processes; 0 is the one that writes.
    on_machine
        Processes on each machine.
    port
        Where processes that were started here find each other; None where something else started
        them, or there is one only.
    """

    rank: int
    processes: int
    on_machine: int
    port: int | None = None

    @property
    def machines(self) -> int:
        """How many machines there are."""
        return self.processes // self.on_machine

    def environment(self) -> ClusterEnvironment:
        """Return what tells Lightning the same."""
        if self.processes == 1 or self.port is not None:
            return _OwnEnvironment(self)
        if TorchElasticEnvironment.detect():
            return TorchElasticEnvironment()
        # We answer the signals ourselves.
        return SLURMEnvironment(auto_requeue=False)


class _OwnEnvironment(LightningEnvironment):
    """The processes of this machine, all of which are there already."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return self._place.port or 0

    def world_size(self) -> int:
        return self._place.processes

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self._place.rank

    def local_rank(self) -> int:
        return self._place.rank

    def node_rank(self) -> int:
        return 0

    def teardown(self) -> None:
        pass


def find_place(processes: int | None, *, uses_gpu: bool) -> Place:
    """Return which process this is, and how many there are.

    Parameters
    ----------
    processes
        To be started on this machine; None: one for each GPU, one without any. What ``torchrun``
        or Slurm started counts instead.

    Raises
    ------
    UsageError
        There are fewer GPUs than processes.
    """
    environ = os.environ
    if TorchElasticEnvironment.detect():
        place = Place(
            int(environ["RANK"]), int(environ["WORLD_SIZE"]), int(environ["LOCAL_WORLD_SIZE"])
        )
    elif int(environ.get("SLURM_NTASKS", 1)) > 1 and SLURMEnvironment.detect():
        tasks, machines = int(environ["SLURM_NTASKS"]), int(environ["SLURM_NNODES"])
        place = Place(int(environ["SLURM_PROCID"]), tasks, tasks // machines)
    else:
        number = processes or (torch.cuda.device_count() if uses_gpu else 1)
        place = Place(0, number, number, _free_port() if number > 1 else None)
    if uses_gpu and place.on_machine > torch.cuda.device_count():
        raise UsageError(
            f"{place.on_machine} processes need as many GPUs; "
            f"there are {torch.cuda.device_count()}.",
            hint="Start fewer processes, or train on the processor.",
        )
    return place


def is_first_process() -> bool:
    """Tell whether this is the one, of what ``torchrun`` or Slurm started, that reports."""
    return find_place(None, uses_gpu=False).rank == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cores() -> int:
    """Return how many cores this process may use, which a cluster limits."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Windows, not on macOS
        return os.cpu_count() or 1


def count_workers(setting: int | None, place: Place, *, uses_gpu: bool) -> int:
    """Return how many workers read for this process.

    Parameters
    ----------
    setting
        ``training.workers`` of the recipe; None: where a GPU calculates one for each of its cores
        but one, else one for every fourth, and 8 at most.
    """
    if setting is not None:
        return setting
    own = cores() // place.on_machine
    wanted = own - 1 if uses_gpu or own < 2 else max(1, own // 4)
    return min(MAX_WORKERS, max(0, wanted))


Job = TypeVar("Job")


@contextmanager
def other_processes(work: Callable[[Job, Place], object], job: Job, place: Place) -> Iterator[None]:
    """Have the other processes of this machine do their part while this one does its own.

    They are started afresh, as workers are (see `PatchLoader`), and are ended with the block.

    Parameters
    ----------
    work
        A function of a module; gets the job and its place.
    job
        Can be pickled.

    Raises
    ------
    QpannotError
        One of them failed, and this one for no reason of its own.
    """
    if place.port is None or place.rank > 0:
        yield
        return
    context = multiprocessing.get_context("spawn")
    others: list[tuple[SpawnProcess, Connection]] = []
    known = {key: os.environ.get(key) for key in ("MASTER_ADDR", "MASTER_PORT")}
    try:
        for rank in range(1, place.processes):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=_work, args=(work, job, replace(place, rank=rank), sender)
            )
            process.start()
            sender.close()
            others.append((process, receiver))
        yield
        for process, _ in others:
            process.join(JOINED_WITHIN_S)
    except QpannotError:
        raise
    except Exception as error:
        # It hears of a process that fails by a connection that breaks.
        for process, _ in others:
            process.join(JOINED_WITHIN_S)
        for rank, (_, receiver) in enumerate(others, start=1):
            if told := _received(receiver):
                message, hint = told
                raise QpannotError(
                    f"Process {rank} of the training failed: {message}", hint=hint
                ) from error
        raise
    finally:
        for process, receiver in others:
            process.terminate()
            process.join()
            receiver.close()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for key, value in known.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value


def _received(receiver: Connection) -> tuple[str, str | None] | None:
    try:
        told: tuple[str, str | None] | None = receiver.recv() if receiver.poll() else None
    except EOFError:
        return None
    return told


def _work(work: Callable[[Job, Place], object], job: Job, place: Place, sender: Connection) -> None:
    try:
        work(job, place)
    except QpannotError as error:
        sender.send((error.message, error.hint))
    except Exception:  # noqa: BLE001 - the process that started this one tells of it
        sender.send((traceback.format_exc(), None))


@contextmanager
def share_cores(place: Place, workers: int) -> Iterator[None]:
    """Let this process calculate on its part of the cores meanwhile, but for those of its readers.

    More threads than cores slow each other down far more than the last of them brings.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, cores() // place.on_machine - workers))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
