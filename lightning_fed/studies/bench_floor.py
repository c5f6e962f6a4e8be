"""The floor of `bench federation`: the same steps in bare PyTorch, in plain processes, without federation.

Imports neither Lightning nor Ray. A round is: for each hospital of the process, copy the global weights in,
take one epoch of Adam steps, read the weights out; then its share of the evaluation images.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from lightning_fed.data.images import ImageSet
from lightning_fed.models.dpresnet import DPResNet
from lightning_fed.models.vector import load_vector, to_vector


def floor_rounds(
    hospitals: list[ImageSet],
    evaluation: ImageSet,
    *,
    width: int,
    batch_size: int,
    rounds: int,
    processes: int,
    threads: int,
) -> list[float]:
    """Wall seconds of each round: that of the slowest process."""
    shares = np.array_split(np.arange(len(evaluation)), processes)
    parts = [ImageSet(evaluation.images[share], evaluation.labels[share]) for share in shares]
    jobs = [(hospitals[number::processes], part, width, batch_size, threads) for number, part in enumerate(parts)]
    return rounds_together(_serve, jobs, rounds)


def rounds_together(serve: Callable[..., None], jobs: Sequence[tuple[Any, ...]], rounds: int) -> list[float]:
    """Wall seconds of rounds that several processes begin together, each until the slowest is done.

    Args:
        serve: what a process runs, of a job and a connection: it sends once when it is ready, and after each True
            or False that it receives when the round is done; the last is False.
        jobs: of the processes.
    """
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in jobs]
    workers = []
    for job, (_, theirs) in zip(jobs, pairs, strict=True):
        workers.append(context.Process(target=serve, args=(*job, theirs)))
        workers[-1].start()
        theirs.close()  # so that a worker's death ends the wait for it
    for ours, _ in pairs:
        ours.recv()  # imported and built
    seconds = [_round([ours for ours, _ in pairs], round < rounds - 1) for round in range(rounds)]
    for worker in workers:
        worker.join()
    return seconds


def _round(connections: list[Connection], more: bool) -> float:
    start = time.perf_counter()
    for connection in connections:
        connection.send(more)
    for connection in connections:
        connection.recv()
    return time.perf_counter() - start


def _serve(
    hospitals: list[ImageSet],
    evaluation: ImageSet,
    width: int,
    batch_size: int,
    threads: int,
    connection: Connection,
) -> None:
    torch.set_num_threads(threads)
    classes = int(max(hospital.labels.max() for hospital in hospitals)) + 1
    networks = [DPResNet(3, classes, width) for _ in hospitals]
    optimizers = [torch.optim.Adam(network.parameters(), 1e-3) for network in networks]
    weights = to_vector(networks[0])
    order = np.random.default_rng(0)
    connection.send("ready")
    more = True
    while more:
        more = connection.recv()
        for network, optimizer, images in zip(networks, optimizers, hospitals, strict=True):
            load_vector(network, weights)
            _epoch(network, optimizer, images, order.permutation(len(images)), batch_size)
            to_vector(network)
        _evaluate(networks[0], evaluation)
        connection.send("done")


def _epoch(
    network: DPResNet, optimizer: torch.optim.Optimizer, images: ImageSet, deal: Any, batch_size: int
) -> None:
    network.train()
    for start in range(0, len(deal), batch_size):
        rows = deal[start : start + batch_size]
        loss = functional.cross_entropy(
            network(_pixels(images.images[rows])), torch.from_numpy(images.labels[rows])
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@torch.inference_mode()
def _evaluate(network: DPResNet, images: ImageSet) -> None:
    network.eval()
    for start in range(0, len(images), 256):
        network(_pixels(images.images[start : start + 256])).softmax(1)


def _pixels(images: Any) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)
