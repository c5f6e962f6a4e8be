"""`lightning-fed bench federation`: what the federation's frame costs over its own gradient work."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from lightning_fed.checks import positive
from lightning_fed.data.bloodcells import CELL_TYPES, draw
from lightning_fed.data.images import ImageData, ImageSet
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data, Evaluation, Experiment, Federation, Model, Ray, Tracking, Training
from lightning_fed.federation.assembly import open_crew
from lightning_fed.federation.checkpoint import Checkpoints
from lightning_fed.federation.dispatch import Dispatcher, Job
from lightning_fed.federation.driver import Driver
from lightning_fed.federation.enrolment import enrol, save_identities
from lightning_fed.federation.protection import doses_of
from lightning_fed.federation.roster import make_roster
from lightning_fed.federation.site import build_classifier
from lightning_fed.federation.strategy import GlobalModel
from lightning_fed.models.vector import vector_size
from lightning_fed.studies.bench_floor import floor_rounds

BATCH_SIZE = 32
EVALUATION_IMAGES = 512
FLOOR_ROUNDS = 2


@dataclass(frozen=True)
class FederationJob:
    """The job: `hospitals` of `images` each, DPResNet of `width`, one local epoch of Adam in batches of 32.

    Every hospital's process has `threads` torch threads; the first of `rounds` is not counted.
    """

    hospitals: int
    images: int
    width: int
    rounds: int
    threads: int

    def __post_init__(self) -> None:
        positive("bench", **asdict(self))
        if self.rounds < 2:
            raise InputError(f"bench.rounds is {self.rounds}: it must be 2 or more, as the first is not counted")

    @property
    def processes(self) -> int:
        """Hospitals that train at the same time: the machine's cores over the threads of each."""
        return min(max(len(os.sched_getaffinity(0)) // self.threads, 1), self.hospitals)


@dataclass(frozen=True)
class Measured:
    """One way of running the job.

    Args:
        round_seconds: median wall time from one checkpoint to the next. startup_seconds: from the start of Ray
            until every hospital is built and has answered. hospital_pss_bytes: proportional set size of a
            hospital's process, divided by its hospitals; the greatest. total_pss_bytes: of the driver, Ray and
            all hospitals together. floor_seconds: median round of the floor, before and after. ratio: of both.
    """

    round_seconds: float
    floor_seconds: float
    ratio: float
    startup_seconds: float
    hospital_pss_bytes: int
    total_pss_bytes: int


def bench_federation(job: FederationJob, packed_only: bool = False) -> dict[str, Any]:
    """Run the job unpacked and packed between runs of its floor, print the table, return the figures.

    With `packed_only` a hundred hospitals need no hundred processes; the top-level figures are then missing.
    """
    data = draw_images(job.hospitals * job.images)
    floors = [_floor(job, data)]
    measured: dict[str, Measured] = {}
    ways = {"unpacked": 1, "packed": -(-job.hospitals // job.processes)}
    for name, per_actor in list(ways.items())[packed_only:]:
        raw = _measure(job, data, per_actor)
        floors.append(_floor(job, data))
        floor = statistics.median(floors[-2] + floors[-1])
        measured[name] = replace(raw, floor_seconds=floor, ratio=raw.round_seconds / floor)
    imports = _import_seconds(job)
    _print_table(job, measured, imports)
    figures = {name: asdict(result) for name, result in measured.items()}
    return {**figures.get("unpacked", {}), **figures, "import_seconds": imports, "job": asdict(job)}


def draw_images(count: int, held_out_images: int = EVALUATION_IMAGES) -> ImageData:
    """Procedural cells to train on, and others to evaluate: as many as Flower's figure had."""
    train = ImageSet(*draw(count, seed=1))
    held_out = ImageSet(*draw(held_out_images, seed=1, stream="validation"))
    return ImageData("bloodcells", "procedural blood cells", False, CELL_TYPES, train, held_out, held_out)


def _floor(job: FederationJob, data: ImageData) -> list[float]:
    """Wall seconds of the floor's rounds after its first."""
    rows = np.array_split(np.arange(len(data.train)), job.hospitals)
    seconds = floor_rounds(
        [ImageSet(data.train.images[part], data.train.labels[part]) for part in rows],
        data.validation,
        width=job.width,
        batch_size=BATCH_SIZE,
        rounds=FLOOR_ROUNDS + 1,
        processes=job.processes,
        threads=job.threads,
    )
    return seconds[1:]


def _experiment(job: FederationJob, per_actor: int) -> Experiment:
    return Experiment(
        data=Data(images=job.hospitals * job.images, partition="iid", min_images=1, validation=0.0),
        model=Model(width=job.width),
        training=Training(
            optimizer="Adam",
            lr=1e-3,
            batch_size=BATCH_SIZE,
            augment=False,
            schedule="constant",
            warmup_rounds=0.0,
            threads=job.threads,
        ),
        federation=Federation(hospitals=job.hospitals, rounds=job.rounds, local_epochs=1),
        evaluation=Evaluation(batch_size=256),
        ray=Ray(hospitals_per_actor=per_actor, cpus_per_hospital=job.threads),
        tracking=Tracking(wandb="disabled"),
    )


def _measure(job: FederationJob, data: ImageData, per_actor: int) -> Measured:
    timed = time_rounds(_experiment(job, per_actor), data)
    return Measured(
        statistics.median(timed.periods), 0.0, 0.0, timed.startup, timed.site_pss // per_actor, timed.total_pss
    )


@dataclass(frozen=True)
class TimedRounds:
    """A federation that ran without records and page.

    Args:
        startup: seconds until every hospital has answered. periods: seconds from one checkpoint to the next.
        site_pss: greatest proportional set size of a hospitals' process, bytes. total_pss: of all processes.
    """

    startup: float
    periods: list[float]
    site_pss: int
    total_pss: int


def time_rounds(experiment: Experiment, data: ImageData) -> TimedRounds:
    """Run an experiment's rounds on some images in a folder that goes away again."""
    closed: list[float] = []
    with open_federation(experiment, data) as opened:
        opened.driver.on_close = lambda trained: closed.append(time.perf_counter())
        for _ in opened.driver.rounds():
            pass
        memory = _memory(opened.driver.dispatcher)
        total = _total_memory()
    periods = [later - earlier for earlier, later in itertools.pairwise(closed)]
    return TimedRounds(opened.startup, periods, max(memory), total)


@dataclass(frozen=True)
class Opened:
    """A federation that is ready for its first round.

    Args:
        driver: without records and page. folder: of its checkpoints and hospitals' states. startup: seconds until
            every hospital has answered.
    """

    driver: Driver
    folder: Path
    startup: float


@contextmanager
def open_federation(experiment: Experiment, data: ImageData) -> Iterator[Opened]:
    """Start an experiment's hospitals on some images, in a folder that goes away again with them."""
    network = build_classifier(experiment, data).network
    roster = make_roster(experiment, data)
    sizes = [len(member.train) for member in roster.members]
    roster = roster.with_doses(doses_of(experiment, sizes, vector_size(network)))
    experiment, identities = enrol(experiment, roster)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_identities(folder, identities)
        start = time.perf_counter()
        with closing(open_crew(experiment, data, roster, folder)) as crew:
            startup = time.perf_counter() - start
            model = GlobalModel.first(experiment, network)
            driver = Driver(experiment, data, roster, model, crew, Checkpoints(folder))
            yield Opened(driver, folder, startup)


def _memory(dispatcher: Dispatcher) -> list[int]:
    sizes: list[int] = []
    sites = range(len(dispatcher.crew.places))
    dispatcher.submit(Job(site, "memory", (), sizes.append) for site in sites)
    dispatcher.run_until(lambda: len(sizes) == len(sites))
    return sizes


def _total_memory() -> int:
    """Proportional set sizes of this process and all that it started, Ray's own among them."""
    this = psutil.Process()
    total = 0
    for process in [this, *this.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue  # ended meanwhile
    return total


def _import_seconds(job: FederationJob) -> float:
    """Wall seconds in which plain processes, one for each hospital, import torch and Lightning: what a hospital
    a process would cost with no thought given to what it imports.
    """
    command = [sys.executable, "-c", "import torch, lightning.pytorch"]
    start = time.perf_counter()
    waiting = job.hospitals
    running: list[subprocess.Popen[bytes]] = []
    while waiting or running:
        while waiting and len(running) < job.processes:
            running.append(subprocess.Popen(command))
            waiting -= 1
        running.pop(0).wait()
    return time.perf_counter() - start


def _print_table(job: FederationJob, measured: dict[str, Measured], imports: float) -> None:
    table = Table(
        title=f"{job.hospitals} hospitals x {job.images} images, DPResNet width {job.width}, "
        f"batch {BATCH_SIZE}, {job.processes} at a time, {job.threads} thread(s) each"
    )
    for heading in ("", "round s", "floor s", "ratio", "start-up s", "PSS of a hospital MB", "PSS in all GB"):
        table.add_column(heading, justify="right")
    for name, result in measured.items():
        table.add_row(
            name,
            f"{result.round_seconds:.2f}",
            f"{result.floor_seconds:.2f}",
            f"{result.ratio:.3f}",
            f"{result.startup_seconds:.1f}",
            f"{result.hospital_pss_bytes / 1e6:.0f}",
            f"{result.total_pss_bytes / 1e9:.2f}",
        )
    console = Console()
    console.print(table)
    console.print(f"plain imports of torch and Lightning by {job.hospitals} processes: {imports:.1f} s")
