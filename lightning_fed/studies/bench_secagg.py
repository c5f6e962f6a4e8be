"""`lightning-fed bench secagg`: what a round of SecAgg+ costs all parties, over the work that must be done."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CTR
from rich.console import Console
from rich.table import Table

from lightning_fed.checks import positive
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data, Experiment, Federation, Model, Ray, SecAgg, Tracking, Training
from lightning_fed.secagg.errors import UnsafeParametersError
from lightning_fed.secagg.masks import CHUNK, KEY_BYTES
from lightning_fed.secagg.parameters import Assumption, Parameters, choose
from lightning_fed.secagg.quantise import Encoding
from lightning_fed.secagg.shard import ShardSum
from lightning_fed.secagg.wire import pack, packed_bytes
from lightning_fed.studies.bench_federation import draw_images, time_rounds
from lightning_fed.studies.secagg_parties import Parties

WEIGHT = 1000
NARROW, WIDE = 20, 28  # bits of a coordinate: rings of 24 and 32 bits for ten hospitals
TABLE_PARAMETERS = 100_000
RAY_IMAGES, RAY_ROUNDS = 4, 6
TABLE_HOSPITALS = (10, 30, 100, 300, 1000)


@dataclass(frozen=True)
class SecAggJob:
    """One round of `hospitals` with vectors of `parameters`, `rounds` times; DPResNet of `width` on Ray."""

    hospitals: int
    parameters: int
    rounds: int
    width: int

    def __post_init__(self) -> None:
        positive("bench", **asdict(self))


@dataclass(frozen=True)
class RoundCost:
    """CPU seconds of one round.

    Args:
        setup: keys and shares, all parties. clients: quantising, masking and packing, all hospitals.
        server_add: unpacking and adding masked vectors. server_open: rebuilding secrets, unmasking, decoding;
            the hospitals' part of it, signatures and shares, is in `consistency`.
        upload_bytes: of one hospital's masked vector.
    """

    setup: float
    clients: float
    server_add: float
    consistency: float
    server_open: float
    upload_bytes: int

    @property
    def server(self) -> float:
        """The aggregator's part after the keys."""
        return self.server_add + self.server_open

    @property
    def total(self) -> float:
        """All parties together."""
        return self.setup + self.clients + self.consistency + self.server


class Rehearsal(Parties):
    """All parties, and the time that hospitals take to answer."""

    hospital_seconds = 0.0

    def _ask(self, method: str, messages: Mapping[int, Any]) -> Mapping[int, Any]:
        begun = time.process_time()
        answers = super()._ask(method, messages)
        self.hospital_seconds += time.process_time() - begun
        return answers

    def round(self, number: int, update: np.ndarray[Any, np.dtype[np.float32]], dropped: int = 0) -> RoundCost:
        """One whole round on equal updates; the last `dropped` hospitals are gone after their shares.

        Raises:
            RuntimeError: the opened sum is not the survivors'.
        """
        ring_bits = self.encoding.ring_bits
        clock = _Clock()
        session = self.conductor.set_up(range(len(self.clients)), number)
        setup = clock.lap()
        total = ShardSum(0, self.terms.length, ring_bits)
        clients = server_add = 0.0
        survivors = self.clients[: len(self.clients) - dropped]
        expected = np.zeros(self.terms.length, dtype=np.uint32)
        for client in survivors:
            clock.lap()
            vector, _ = self.encoding.encode(update, WEIGHT, os.urandom(KEY_BYTES))
            clients += clock.lap()
            expected += vector
            clock.lap()
            client.mask(number, vector)
            packed = pack(vector, ring_bits)
            clients += clock.lap()
            total.add(packed)
            server_add += clock.lap()
        self.hospital_seconds = 0.0
        clock.lap()
        unmasking = self.conductor.open(session, number, range(len(survivors)))
        opened = total.open(unmasking.masks)
        self.encoding.decode(opened)
        closing = clock.lap()
        if not np.array_equal(opened, expected & np.uint32(2**ring_bits - 1)):
            raise RuntimeError("the opened sum is not that of the survivors")
        hospitals = self.hospital_seconds
        return RoundCost(
            setup, clients, server_add, hospitals, closing - hospitals, packed_bytes(self.terms.length, ring_bits)
        )


class _Clock:
    """CPU seconds of this process between laps."""

    def __init__(self) -> None:
        self._last = time.process_time()

    def lap(self) -> float:
        now = time.process_time()
        passed, self._last = now - self._last, now
        return passed


def bench_secagg(job: SecAggJob) -> dict[str, Any]:
    """Measure, print the tables, return the figures.

    Raises:
        InputError: too few hospitals for the protocol.
    """
    try:
        parameters = choose(job.hospitals, Assumption())
    except UnsafeParametersError as error:
        raise InputError(f"bench.hospitals: {error}") from error
    dropped = min(3 * job.hospitals // 10, job.hospitals - parameters.threshold)
    floors, whole, with_dropouts = [], [], []
    for _ in range(job.rounds):  # in turn, so that a busy moment of the machine meets all of them
        floors.append(_floor_seconds(job, parameters.degree))
        whole.append(_measure(job, parameters, NARROW))
        with_dropouts.append(_measure(job, parameters, NARROW, dropped))
    wide = _measure(job, parameters, WIDE)
    floor, cost, after_dropouts = statistics.median(floors), _median(whole), _median(with_dropouts)
    limits = {"keystream_gb_per_s": _keystream_rate(), "add_gb_per_s": _add_rate()}
    by_hospitals = {str(hospitals): _by_rule(hospitals) for hospitals in TABLE_HOSPITALS}
    figures = {
        "cpu_seconds": cost.total,
        "floor_seconds": floor,
        "ratio": cost.total / floor,
        "upload_bytes": cost.upload_bytes,
        "upload_bytes_32_bits": wide.upload_bytes,
        "cpu_seconds_32_bits": wide.total,
        "dropped": dropped,
        "dropped_cpu_seconds": after_dropouts.total,
        "dropped_ratio": after_dropouts.total / cost.total,
        "dropped_server_cpu_seconds": after_dropouts.server,
        "parts": asdict(cost),
        "limits": limits,
        "by_hospitals": by_hospitals,
        "round_seconds_on_ray": _through_ray(job),
        "job": asdict(job),
    }
    _print(job, parameters, cost, after_dropouts, figures)
    return figures


def _median(costs: list[RoundCost]) -> RoundCost:
    return sorted(costs, key=lambda cost: cost.total)[len(costs) // 2]


def _measure(job: SecAggJob, parameters: Parameters, bits: int, dropped: int = 0) -> RoundCost:
    encoding = Encoding(job.hospitals, 1.0, bits, WEIGHT)
    rehearsal = Rehearsal(parameters, encoding, encoding.length(job.parameters))
    return rehearsal.round(1, _update(job.parameters), dropped)


def _through_ray(job: SecAggJob) -> dict[str, float]:
    """Median seconds of a round through Ray with next to no training, plain and masked, and the difference."""
    data = draw_images(RAY_IMAGES * job.hospitals)
    seconds = {}
    for protocol in ("plain", "secagg_plus"):
        experiment = Experiment(
            data=Data(partition="iid", min_images=1, validation=0.0),
            model=Model(width=job.width),
            training=Training(optimizer="SGD", lr=1e-3, batch_size=2, augment=False, warmup_rounds=0.0),
            federation=Federation(hospitals=job.hospitals, rounds=RAY_ROUNDS, local_steps=1),
            secagg=SecAgg(protocol=protocol, bits=NARROW),
            ray=Ray(hospitals_per_actor=-(-job.hospitals // 2)),
            tracking=Tracking(wandb="disabled"),
        )
        seconds[protocol] = statistics.median(time_rounds(experiment, data).periods)
    return {**seconds, "added": seconds["secagg_plus"] - seconds["plain"]}


def _update(parameters: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(0, 0.01, parameters).astype(np.float32)


def _floor_seconds(job: SecAggJob, degree: int) -> float:
    """CPU seconds of the work that no implementation can leave out: for each hospital its keystreams by
    AES-128-CTR, each added in place, and one stochastic quantisation; for the server each survivor's keystream.
    """
    update = _update(job.parameters)
    encoding = Encoding(job.hospitals, 1.0, NARROW, WEIGHT)
    zeros, stream = bytes(4 * CHUNK), np.empty(CHUNK + 4, dtype=np.uint32)
    clock = _Clock()
    for _ in range(job.hospitals):
        vector, _ = encoding.encode(update, WEIGHT, bytes(KEY_BYTES))
        for _ in range(degree + 2):  # its neighbours', its own, and its own again at the server
            cipher = Cipher(AES128(os.urandom(KEY_BYTES)), CTR(bytes(16))).encryptor()
            for start in range(0, len(vector), CHUNK):
                part = vector[start : start + CHUNK]
                cipher.update_into(memoryview(zeros)[: 4 * len(part)], stream.data.cast("B"))
                part += stream[: len(part)]
    return clock.lap()


def _keystream_rate() -> float:
    """GB of AES-128-CTR a CPU second, in pieces that stay in the cache."""
    zeros, stream = bytes(4 * CHUNK), bytearray(4 * CHUNK + 16)
    cipher = Cipher(AES128(bytes(16)), CTR(bytes(16))).encryptor()
    clock = _Clock()
    for _ in range(4000):
        cipher.update_into(zeros, stream)
    return 4000 * len(zeros) / clock.lap() / 1e9


def _add_rate() -> float:
    """GB of uint32 sums written a CPU second, for a vector larger than the cache."""
    total, vector = np.zeros(8_000_000, np.uint32), np.ones(8_000_000, np.uint32)
    clock = _Clock()
    for _ in range(20):
        total += vector
    return 20 * total.nbytes / clock.lap() / 1e9


def _by_rule(hospitals: int) -> dict[str, Any]:
    """A round of `hospitals` with parameters by the default, 100,000 coordinates, no dropout."""
    parameters = choose(hospitals, Assumption())
    encoding = Encoding(hospitals, 1.0, 16, WEIGHT)
    rehearsal = Rehearsal(parameters, encoding, encoding.length(TABLE_PARAMETERS))
    cost = rehearsal.round(1, _update(TABLE_PARAMETERS))
    return {
        "degree": parameters.degree,
        "threshold": parameters.threshold,
        "client_cpu_seconds": (cost.setup + cost.clients + cost.consistency) / hospitals,
        "server_cpu_seconds": cost.server,
    }


def _print(
    job: SecAggJob, parameters: Parameters, cost: RoundCost, dropped: RoundCost, figures: Mapping[str, Any]
) -> None:
    console = Console()
    table = Table(
        title=f"{job.hospitals} hospitals, {job.parameters:,} parameters, degree {parameters.degree}, threshold "
        f"{parameters.threshold}: CPU seconds of all parties in a round"
    )
    names = ("", "keys", "hospitals", "add", "sign, shares", "open", "in all")
    for heading in names:
        table.add_column(heading, justify="right")
    for name, one in (("no dropout", cost), (f"{figures['dropped']} after shares", dropped)):
        parts = (one.setup, one.clients, one.server_add, one.consistency, one.server_open, one.total)
        table.add_row(name, *(f"{seconds:.3f}" for seconds in parts))
    console.print(table)
    limits = figures["limits"]
    console.print(
        f"floor {figures['floor_seconds']:.3f} CPU-seconds (keystreams, additions, quantisation): ratio "
        f"{figures['ratio']:.3f}; with dropouts {figures['dropped_ratio']:.3f} times as much"
    )
    console.print(
        f"limits of this machine: AES-128-CTR {limits['keystream_gb_per_s']:.1f} GB/s, uint32 additions "
        f"{limits['add_gb_per_s']:.1f} GB/s; upload {figures['upload_bytes'] / 1e6:.1f} MB each at 24 bits, "
        f"{figures['upload_bytes_32_bits'] / 1e6:.1f} MB at 32"
    )
    on_ray = figures["round_seconds_on_ray"]
    console.print(
        f"through Ray, DPResNet of width {job.width}, one step a round: {on_ray['plain']:.2f} s plain, "
        f"{on_ray['secagg_plus']:.2f} s masked, {on_ray['added']:.2f} s more"
    )
    growth = Table(
        title=f"{TABLE_PARAMETERS:,} parameters, 10 % corrupt, 10 % dropping out, a semi-malicious server"
    )
    for heading in ("hospitals", "degree", "threshold", "ms of a hospital", "ms of the server", "server, each"):
        growth.add_column(heading, justify="right")
    for hospitals, row in figures["by_hospitals"].items():
        growth.add_row(
            hospitals,
            str(row["degree"]),
            str(row["threshold"]),
            f"{1e3 * row['client_cpu_seconds']:.1f}",
            f"{1e3 * row['server_cpu_seconds']:.1f}",
            f"{1e3 * row['server_cpu_seconds'] / int(hospitals):.2f}",
        )
    console.print(growth)
