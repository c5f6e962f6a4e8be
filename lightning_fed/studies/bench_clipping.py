"""`lightning-fed bench clipping`: what a step with clipped gradients costs over a plain step of the same net."""

from __future__ import annotations

import math
import multiprocessing
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.checks import positive
from lightning_fed.experiment import Model
from lightning_fed.models.registry import build_network
from lightning_fed.privacy.clipping.ways import WAYS, ClippedSums
from lightning_fed.studies.threads import torch_threads

CHANNELS, SIZE, CLASSES = 3, 28, 8
MAX_GRAD_NORM = 1.0
MEMORY_BATCH = 256
SLOW_ROUNDS = 2  # of Opacus's ways, beside which one pass is measured

STATUS = Path("/proc/self/status")

Step = Callable[[], object]


@dataclass(frozen=True)
class Subject:
    """A network and the images of a step."""

    network: str
    width: int
    batch: int

    @property
    def name(self) -> str:
        """Such as `dpresnet_16`."""
        return f"{self.network}_{self.width}"

    def build(self, device: str) -> nn.Module:
        """The network with GroupNorm, the same weights each time."""
        return build_network(Model(self.network, width=self.width), CHANNELS, CLASSES, seed=0).to(device).train()


SUBJECTS = (Subject("dpresnet", 16, 64), Subject("dpresnet", 64, 16), Subject("resnet18", 64, 8))


@dataclass(frozen=True)
class ClippingJob:
    """The `SUBJECTS`, or DPResNet and ResNet-18 of one `width`; `batch` images in place of each subject's own.

    The shortest of `rounds` steps counts; every step has `threads` torch threads.
    """

    rounds: int
    threads: int
    width: int | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        positive("bench", **asdict(self))

    @property
    def subjects(self) -> list[Subject]:
        """What is measured."""
        subjects = list(SUBJECTS)
        if self.width is not None:
            subjects = [Subject(network, self.width, 16) for network in ("dpresnet", "resnet18")]
        return [Subject(one.network, one.width, self.batch or one.batch) for one in subjects]


def bench_clipping(job: ClippingJob) -> dict[str, Any]:
    """Measure on the CPU, and on the GPU if there is one (names end in `_cuda`), print tables, return figures."""
    figures: dict[str, Any] = {}
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        with torch_threads(job.threads), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Full backward hook is firing"
            )  # Opacus's, on the first layer
            found = {subject.name: _measure(subject, job, device) for subject in job.subjects}
        _print(found, job, device)
        figures |= {name if device == "cpu" else f"{name}_{device}": row for name, row in found.items()}
    return figures


def _measure(subject: Subject, job: ClippingJob, device: str) -> dict[str, float | None]:
    seconds = step_seconds(subject, job, device)
    plain = seconds["plain"]
    return {
        "plain_ms": 1e3 * plain / subject.batch,
        **{f"{way}_ratio": seconds[way] / plain for way in WAYS},
        "one_pass_memory_ratio": memory_ratio(subject, job.threads, device),
    }


def make_step(subject: Subject, way: str, device: str) -> Step:
    """A step: forward, backward and, but for `plain`, the clipped sums in hand; no optimizer."""
    network = subject.build(device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(subject.batch, CHANNELS, SIZE, SIZE, generator=generator).to(device)
    labels = torch.randint(CLASSES, (subject.batch,), generator=generator).to(device)
    if way == "plain":

        def plain() -> None:
            network.zero_grad()
            functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]

        return plain
    clipped = ClippedSums(network, way, MAX_GRAD_NORM)

    def private() -> list[Tensor]:
        clipped.backward(functional.cross_entropy(network(images), labels, reduction="none"))
        return [total for _, total in clipped.sums()[1]]

    return private


def step_seconds(subject: Subject, job: ClippingJob, device: str) -> dict[str, float]:
    """Seconds of the shortest step each way, taken in turn: CPU time of the one thread, else wall time."""
    steps = {way: make_step(subject, way, device) for way in ("plain", *WAYS)}
    clock = time.thread_time if device == "cpu" and job.threads == 1 else time.perf_counter
    shortest: dict[str, float] = {}
    for round in range(job.rounds + 1):
        for way, step in steps.items():
            if way not in ("plain", "one_pass") and round > min(job.rounds, SLOW_ROUNDS):
                continue
            start = clock()
            step()
            if device != "cpu":
                torch.cuda.synchronize()
            passed = clock() - start
            if round > 0:  # the first makes caches and kernels
                shortest[way] = min(passed, shortest.get(way, passed))
    return shortest


def memory_ratio(subject: Subject, threads: int, device: str) -> float | None:
    """Peak memory of a one-pass step of 256 images over that of a plain step, each in a process of its own.

    Of each, the high-water mark of the resident set less what was resident before the step (a step of two images
    went before it, so that kernels are loaded and weights and gradients are there); on a GPU, of what torch has
    allocated. None where the system does not tell.
    """
    large = Subject(subject.network, subject.width, MEMORY_BATCH)
    one_pass, plain = (_peak_in_child(large, way, threads, device) for way in ("one_pass", "plain"))
    return None if math.isnan(one_pass / plain) else one_pass / plain


def _peak_in_child(subject: Subject, way: str, threads: int, device: str) -> float:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_send_peak, args=(subject, way, threads, device, theirs))
    child.start()
    theirs.close()
    peak: float = ours.recv()
    child.join()
    return peak


def _send_peak(subject: Subject, way: str, threads: int, device: str, connection: Connection) -> None:
    torch.set_num_threads(threads)
    make_step(Subject(subject.network, subject.width, 2), way, device)()
    step = make_step(subject, way, device)
    before = _bytes_now(device)
    step()
    connection.send(_most_bytes(device) - before)


def _bytes_now(device: str) -> float:
    return _resident("VmRSS") if device == "cpu" else float(torch.cuda.memory_allocated())


def _most_bytes(device: str) -> float:
    return _resident("VmHWM") if device == "cpu" else float(torch.cuda.max_memory_allocated())


def _resident(name: str) -> float:
    """A line of Linux's /proc/self/status in bytes, NaN elsewhere."""
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    return next((1024 * float(line.split()[1]) for line in lines if line.startswith(f"{name}:")), float("nan"))


def _print(found: dict[str, dict[str, float | None]], job: ClippingJob, device: str) -> None:
    place = torch.cuda.get_device_name() if device == "cuda" else f"{job.threads} CPU thread(s)"
    table = Table(
        title=f"clipped steps over plain ones, {SIZE} px, float32, {place}: ms of a plain step an image; "
        f"time of each way; memory of one pass at batch {MEMORY_BATCH}"
    )
    for heading in ("", "batch", "ms", *(way.replace("_", " ") for way in WAYS), "memory"):
        table.add_column(heading, justify="right")
    batches = {subject.name: subject.batch for subject in job.subjects}
    for name, row in found.items():
        ratios = [row[f"{way}_ratio"] for way in WAYS] + [row["one_pass_memory_ratio"]]
        cells = ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        table.add_row(name, str(batches[name]), f"{row['plain_ms']:.2f}", *cells)
    Console().print(table)
