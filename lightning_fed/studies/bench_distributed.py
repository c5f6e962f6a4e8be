"""`lightning-fed bench distributed`: what a round of distributed DP costs beyond its gradient work."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from lightning_fed.checks import positive
from lightning_fed.data.datamodule import DrawnPlan, HospitalData
from lightning_fed.data.images import ImageData
from lightning_fed.experiment import (
    Data,
    Evaluation,
    Experiment,
    Federation,
    Model,
    Privacy,
    Ray,
    SecAgg,
    Tracking,
    Training,
)
from lightning_fed.federation.local_work import LocalGradients
from lightning_fed.federation.site import build_classifier
from lightning_fed.models.vector import to_vector, vector_size
from lightning_fed.privacy.sums import GradientSums
from lightning_fed.studies.bench_federation import FederationJob, draw_images, time_rounds
from lightning_fed.studies.bench_floor import rounds_together

HELD_OUT = 8  # of the last round's evaluation
ROUNDS_PER_SETUP = 10
LOAD = 64


@dataclass(frozen=True)
class DistributedJob:
    """The job: `hospitals` sample about `batch` images together in each round, DPResNet of `width`."""

    hospitals: int
    width: int
    batch: int
    rounds: int
    threads: int
    images: int = 100  # of each hospital; more change nothing but the memory

    def __post_init__(self) -> None:
        positive("bench", **asdict(self))

    @property
    def processes(self) -> int:
        """Hospitals that work at the same time."""
        return FederationJob(self.hospitals, self.images, self.width, 2, self.threads).processes


def bench_distributed(job: DistributedJob) -> dict[str, Any]:
    """Time whole rounds on Ray between runs of their gradient work alone; print the table, return the figures."""
    data = draw_images(job.hospitals * job.images, HELD_OUT)
    experiment = experiment_of(job)
    floors = gradient_rounds(job, data)
    timed = time_rounds(experiment, data)
    floor = statistics.median(floors + gradient_rounds(job, data))
    period = statistics.median(timed.periods)
    figures = {
        "round_seconds": period,
        "gradient_seconds": floor,
        "beyond_seconds": period - floor,
        "startup_seconds": timed.startup,
        "parameters": vector_size(build_classifier(experiment, data).network),
        "job": asdict(job),
    }
    _print_table(job, figures)
    return figures


def experiment_of(job: DistributedJob) -> Experiment:
    """Distributed DP among the hospitals, a process for each core."""
    return Experiment(
        data=Data(images=job.hospitals * job.images, partition="iid", min_images=1, validation=0.0),
        model=Model(width=job.width),
        training=Training(
            optimizer="SGD", batch_size=job.batch, schedule="constant", warmup_rounds=0.0, threads=job.threads
        ),
        federation=Federation(hospitals=job.hospitals, rounds=job.rounds + 1, local_steps=1),
        privacy=Privacy(mechanism="distributed", noise_multiplier=1.0, physical_batch_size=LOAD),
        secagg=SecAgg(protocol="secagg_plus", rounds_per_setup=ROUNDS_PER_SETUP),
        evaluation=Evaluation(every=job.rounds + 1),
        ray=Ray(hospitals_per_actor=-(-job.hospitals // job.processes), cpus_per_hospital=job.threads),
        tracking=Tracking(wandb="disabled"),
    )


def gradient_rounds(job: DistributedJob, data: ImageData) -> list[float]:
    """Wall seconds of rounds of clipped gradients alone, in as many plain processes."""
    shares = [job.hospitals // job.processes + (p < job.hospitals % job.processes) for p in range(job.processes)]
    jobs = [(job, data, hospitals, number) for number, hospitals in enumerate(shares)]
    return rounds_together(_serve, jobs, max(job.rounds // 10, 2) + 1)[1:]


def _serve(job: DistributedJob, data: ImageData, hospitals: int, number: int, connection: Connection) -> None:
    torch.set_num_threads(job.threads)
    experiment = experiment_of(job)
    classifier = build_classifier(experiment, data)
    engine = GradientSums(classifier.network, experiment.privacy)
    classifier.example_wise = engine
    images = HospitalData(data.train, np.arange(job.images), np.arange(0), experiment.training)
    work = LocalGradients(experiment, classifier, images)
    weights = to_vector(classifier.network)
    classifier.train()
    chance = np.random.default_rng(number)
    connection.send("ready")
    more = True
    while more:
        more = connection.recv()
        for _ in range(hospitals):
            drawn = np.flatnonzero(chance.random(job.images) < job.batch / job.hospitals / job.images)
            images.plan = DrawnPlan((drawn,), job.images, LOAD, 1, 0, number, 1)
            engine.begin_round()
            work.do(1, images.plan, weights)
        connection.send("done")


def _print_table(job: DistributedJob, figures: dict[str, Any]) -> None:
    table = Table(
        title=f"{job.hospitals} hospitals, {figures['parameters']:,} parameters, {job.batch} images a round, "
        f"{job.processes} processes of {job.threads} thread(s)"
    )
    for heading in ("round s", "gradients s", "beyond s", "start-up s"):
        table.add_column(heading, justify="right")
    names = ("round_seconds", "gradient_seconds", "beyond_seconds", "startup_seconds")
    table.add_row(*(f"{figures[name]:.3f}" for name in names))
    Console().print(table)
