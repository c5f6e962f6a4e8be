"""`lightning-fed bench soak`: whether a long federation keeps its memory, its file handles and its actors."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightning_fed.checks import positive
from lightning_fed.errors import InputError
from lightning_fed.experiment import (
    Data,
    Dropout,
    Evaluation,
    Experiment,
    Faults,
    Federation,
    Model,
    Ray,
    SecAgg,
    Tracking,
    Training,
)
from lightning_fed.federation.census import AGGREGATOR, DRIVER, HOSPITALS, KINDS, RAY, Resident, census
from lightning_fed.studies.bench_federation import FederationJob, draw_images, open_federation
from lightning_fed.tracking.console import say
from lightning_fed.tracking.files import RunFolder
from lightning_fed.tracking.records import TrainedRound

SETTLED = 100  # rounds after which memory should grow no more
DROPOUT = 0.1
ALL, WITHOUT_LIBRARIES = "all", "without_libraries"


@dataclass(frozen=True)
class SoakJob:
    """The job: `hospitals` of `images` each take one step on `batch` of them a round, DPResNet of `width`.

    They share a process for each core, with SecAgg+ and a tenth of them dropping out at any stage. Every `every`
    rounds it is looked at what the run takes.
    """

    hospitals: int
    rounds: int
    images: int
    width: int
    batch: int
    every: int
    threads: int

    def __post_init__(self) -> None:
        positive("bench", **asdict(self))
        if self.rounds <= self.every:
            raise InputError(f"bench.every is {self.every}: it must be below the {self.rounds} rounds, to compare")

    @property
    def processes(self) -> int:
        """Hospitals that train at the same time."""
        return FederationJob(self.hospitals, self.images, self.width, 2, self.threads).processes


@dataclass(frozen=True)
class Sample:
    """What the run took when a round was closed.

    Args:
        round: counted from 1. seconds: median of a round since the sample before.
        memory: proportional set size, bytes, by kind of process, of all together, and of all without pages of
            files, which depend on what else runs on the machine. handles: open ones by kind and together.
        actors: living processes of hospitals and of the aggregator. files: in the run folder.
    """

    round: int
    seconds: float
    memory: dict[str, int]
    handles: dict[str, int]
    actors: dict[str, int]
    files: int


class Watch:
    """Looks at the run as rounds close.

    Args:
        every: rounds from one sample to the next. rounds: of the whole run, whose last is sampled in any case.
        folder: of the run.
    """

    def __init__(self, every: int, rounds: int, folder: Path) -> None:
        self.every, self.rounds, self.folder = every, rounds, folder
        self.samples: list[Sample] = []
        self.without_a_sum = 0
        self._seconds: list[float] = []
        self._begun = time.perf_counter()

    def closed(self, trained: TrainedRound) -> None:
        """A round's checkpoint is in place and nobody trains."""
        self._seconds.append(time.perf_counter() - self._begun)
        self.without_a_sum += trained.failed is not None
        if trained.round % self.every == 0 or trained.round == self.rounds:
            files = sum(path.is_file() for path in self.folder.rglob("*"))
            sample = sample_of(trained.round, statistics.median(self._seconds), census(), files)
            self.samples.append(sample)
            self._seconds = []
            say(_line(sample))
        self._begun = time.perf_counter()


def sample_of(round: int, seconds: float, residents: Sequence[Resident], files: int) -> Sample:
    """The processes' figures added up."""
    memory, handles = dict.fromkeys((ALL, *KINDS), 0), dict.fromkeys((ALL, *KINDS), 0)
    actors = dict.fromkeys((HOSPITALS, AGGREGATOR), 0)
    for resident in residents:
        for kind in (ALL, resident.kind):
            memory[kind] += resident.memory
            handles[kind] += resident.handles
        if resident.kind in actors:
            actors[resident.kind] += 1
    memory[WITHOUT_LIBRARIES] = memory[ALL] - sum(resident.libraries for resident in residents)
    return Sample(round, seconds, memory, handles, actors, files)


def bench_soak(job: SoakJob) -> dict[str, Any]:
    """Run the federation and look at it now and then; print the table, return the figures."""
    data = draw_images(job.hospitals * job.images)
    with open_federation(experiment_of(job), data) as opened:
        watch = Watch(job.every, job.rounds, opened.folder)
        opened.driver.on_close = watch.closed
        records = RunFolder(opened.folder)
        for record in opened.driver.rounds():
            records.add_round(record)
    figures = figures_of(watch.samples)
    _print_table(job, watch.samples)
    return {
        "rounds": job.rounds,
        "hospitals": job.hospitals,
        **figures,
        "rounds_without_a_sum": watch.without_a_sum,
        "startup_seconds": opened.startup,
        "samples": [asdict(sample) for sample in watch.samples],
        "job": asdict(job),
    }


def experiment_of(job: SoakJob) -> Experiment:
    """Short rounds under SecAgg+, rarely measured, that go on whatever fails."""
    return Experiment(
        data=Data(images=job.hospitals * job.images, partition="iid", min_images=1, validation=0.0),
        model=Model(width=job.width),
        training=Training(batch_size=job.batch, schedule="constant", warmup_rounds=0.0, threads=job.threads),
        federation=Federation(hospitals=job.hospitals, rounds=job.rounds, local_steps=1),
        secagg=SecAgg(protocol="secagg_plus"),
        faults=Faults(dropout=Dropout(rate=DROPOUT, stage="any"), max_failed_rounds=job.rounds),
        evaluation=Evaluation(every=job.every),
        ray=Ray(hospitals_per_actor=-(-job.hospitals // job.processes), cpus_per_hospital=job.threads),
        tracking=Tracking(wandb="disabled"),
    )


def figures_of(samples: Sequence[Sample]) -> dict[str, Any]:
    """The last sample beside the first one of a run that has settled, or beside the first in a shorter run."""
    settled = [sample for sample in samples[:-1] if sample.round >= SETTLED]
    first, last = (settled or samples)[0], samples[-1]
    name = str(first.round)
    return {
        "memory_bytes": {name: first.memory, "last": last.memory},
        "memory_ratio": ratios([last], first),
        "greatest_ratio": ratios(samples[samples.index(first) + 1 :], first),
        "handles": {name: first.handles, "last": last.handles},
        "actors": {name: first.actors, "last": last.actors},
        "files": {name: first.files, "last": last.files},
        "round_seconds": {name: first.seconds, "last": last.seconds},
    }


def ratios(samples: Sequence[Sample], first: Sample) -> dict[str, float]:
    """The greatest memory of some samples over that of `first`, by kind; without the kinds that take none."""
    return {
        kind: max(sample.memory[kind] for sample in samples) / memory
        for kind, memory in first.memory.items()
        if memory > 0
    }


def _line(sample: Sample) -> str:
    return (
        f"round {sample.round:,}: {sample.memory[ALL] / 1e6:,.0f} MB, {sample.handles[ALL]} handles, "
        f"{sum(sample.actors.values())} actors, {sample.seconds:.2f} s a round"
    )


def _print_table(job: SoakJob, samples: Sequence[Sample]) -> None:
    table = Table(
        title=f"{job.hospitals} hospitals x {job.images} images, DPResNet width {job.width}, "
        f"a step of {job.batch}, {job.processes} at a time"
    )
    for heading in ("round", "round s", "PSS MB", "driver", "hospitals", "Ray", "handles", "actors"):
        table.add_column(heading, justify="right")
    for sample in samples:
        memory = sample.memory
        sizes = (memory[ALL], memory[DRIVER], memory[HOSPITALS], memory[RAY])
        table.add_row(
            f"{sample.round:,}",
            f"{sample.seconds:.2f}",
            *(f"{size / 1e6:,.0f}" for size in sizes),
            str(sample.handles[ALL]),
            str(sum(sample.actors.values())),
        )
    Console().print(table)
