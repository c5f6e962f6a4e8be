"""The Ray cluster: starting or joining it, and how much of it a hospital takes."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.services import get_ray_address_from_environment
from ray._private.state import available_resources_per_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lightning_fed.errors import FederationError, InputError
from lightning_fed.experiment import Ray
from lightning_fed.federation.crew import Capacity

CONNECT_SECONDS = 5.0
SMALLEST_SHARE = 1e-4  # Ray counts resources in ten-thousandths


@dataclass(frozen=True)
class Node:
    """A living node's resources: all that it has, and the CPUs and GPUs that nobody has reserved."""

    id: str
    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float

    def slots(self, settings: Ray) -> int:
        """How many hospitals can train here at the same time."""
        by_cpu = int(self.cpus / settings.cpus_per_hospital + 1e-9)
        if settings.gpus_per_hospital == 0:
            return by_cpu
        return min(by_cpu, int(self.gpus) * int(1 / settings.gpus_per_hospital + 1e-9))


@dataclass(frozen=True)
class Seat:
    """An actor's node, what it reserves there for its life, and whether another node would do too."""

    node: str
    cpus: float
    gpus: float
    anywhere: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """As `ray.remote` takes them."""
        strategy = NodeAffinitySchedulingStrategy(self.node, soft=self.anywhere)
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "scheduling_strategy": strategy}


class Cluster:
    """A connection to Ray, opened on construction and closed by `close`.

    Raises:
        InputError: nothing answers at `ray.address`, or no node can hold one hospital.
    """

    def __init__(self, settings: Ray) -> None:
        self.ours = not ray.is_initialized()
        if self.ours:
            _connect(settings.address)
        try:
            self.usable(settings)
        except InputError:
            self.close()
            raise

    @property
    def nodes(self) -> list[Node]:
        """The nodes that live now."""
        free = available_resources_per_node()  # type: ignore[no-untyped-call]
        found = []
        for node in ray.nodes():  # type: ignore[no-untyped-call]
            if node["Alive"]:
                every, left = node["Resources"], free.get(node["NodeID"], {})
                found.append(
                    Node(
                        node["NodeID"],
                        every.get("CPU", 0.0),
                        every.get("GPU", 0.0),
                        left.get("CPU", 0.0),
                        left.get("GPU", 0.0),
                    )
                )
        return found

    def usable(self, settings: Ray) -> list[Node]:
        """The nodes that can hold one hospital while it trains; nodes that join later are not used.

        Raises:
            InputError: there is none.
        """
        found = [node for node in self.nodes if node.slots(settings) > 0]
        if found:
            return found
        for key, kind in (("cpus_per_hospital", "cpus"), ("gpus_per_hospital", "gpus")):
            wanted, most = getattr(settings, key), max(getattr(node, kind) for node in self.nodes)
            if wanted > most:
                raise InputError(
                    f"ray.{key} is {wanted:g}, but no node has more than {most:g}: "
                    f"{self.description()}; lower it or add a node"
                )
        raise InputError(
            f"ray.gpus_per_hospital and ray.cpus_per_hospital: no node has both {settings.cpus_per_hospital:g} "
            f"CPUs and {settings.gpus_per_hospital:g} GPUs: {self.description()}; lower one or add a node"
        )

    def description(self) -> str:
        """What there is, in words."""
        parts = [f"{node.cpus:g} CPUs and {node.gpus:g} GPUs" for node in self.nodes]
        return f"the cluster has {len(parts)} node{'s' * (len(parts) > 1)} ({'; '.join(parts)})"

    def capacity(self, settings: Ray) -> Capacity:
        """How many hospitals may train at the same time: the machine's size, not their number."""
        per_node = {node.id: node.slots(settings) for node in self.usable(settings)}
        per_gpu = int(1 / settings.gpus_per_hospital + 1e-9) if settings.gpus_per_hospital else 0
        return Capacity(per_node, per_gpu)

    def seats(self, settings: Ray, actors: int) -> list[Seat]:
        """Where each actor lives, in proportion to the nodes' slots, and the share at which all have a place."""
        nodes = self.usable(settings)
        chosen: list[Node] = []
        for _ in range(actors):
            chosen.append(min(nodes, key=lambda node: (chosen.count(node) + 1) / node.slots(settings)))
        return [_seat(node, settings, chosen.count(node)) for node in chosen]

    def seat_again(self, settings: Ray, node: str) -> Seat | None:
        """For an actor in place of one that was lost on `node`: there, or where there is most room.

        It reserves no CPU, so as to fit beside those that do, since hospitals take turns on a node's CPUs anyway,
        and of a GPU what is free; on its own node the least share, as what the lost one reserved may still count
        as taken. None where no node holds one.
        """
        try:
            nodes = self.usable(settings)
        except InputError:
            return None
        wanted = settings.gpus_per_hospital
        room = [one for one in nodes if not wanted or one.id == node or one.free_gpus >= SMALLEST_SHARE]
        if not room:
            return None
        chosen = min(room, key=lambda one: (one.id != node, -one.free_gpus if wanted else 0.0, -one.free_cpus))
        return Seat(chosen.id, 0.0, _share(min(wanted, chosen.free_gpus)) if wanted else 0.0, anywhere=True)

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        if self.ours:
            ray.shutdown()


def _seat(node: Node, settings: Ray, neighbours: int) -> Seat:
    """A seat on a node that `neighbours` actors share, which reserve no more than is free."""
    cpus = _share(min(settings.cpus_per_hospital, node.free_cpus / neighbours))
    gpus = 0.0
    if settings.gpus_per_hospital > 0:
        on_one_card = math.ceil(neighbours / max(int(node.free_gpus), 1))
        gpus = _share(min(settings.gpus_per_hospital, 1 / on_one_card))
    return Seat(node.id, cpus, gpus)


def _share(amount: float) -> float:
    return max(round(math.floor(amount / SMALLEST_SHARE + 1e-6) * SMALLEST_SHARE, 4), SMALLEST_SHARE)


def _connect(address: str | None) -> None:
    with own_end():
        _join(address)


@contextmanager
def own_end() -> Iterator[None]:
    """Keep this process's answer to SIGTERM: Ray's own prints its stack of machine code, and exits."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def in_time() -> Iterator[None]:
    """Of starting a node.

    Raises:
        FederationError: it did not start in the half minute that Ray has for that.
    """
    try:
        yield
    except Exception as error:  # Ray's is of no kind of its own
        if not any(told in str(error) for told in ("timed out during startup", "Timed out waiting for file")):
            raise
        raise FederationError("Ray did not start here in its 30 s; try again when less runs beside it") from error


def _join(address: str | None) -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        with in_time():
            ray.init(address="local", include_dashboard=False, **options)
        return
    logging.getLogger("ray").setLevel(logging.ERROR)  # it warns of the token that it has just found
    # A head node of this machine wrote its token where we find it; nobody should have to say so again.
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        _check_answers(get_ray_address_from_environment("auto", None) if address == "auto" else address)
        ray.init(address=address, **options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"ray.address is '{address}', but no Ray answers there ({reason}); "
            "start one with 'ray start --head', or leave the key out for a local one"
        ) from error


def _check_answers(address: str) -> None:
    """Raise `OSError` unless something listens there: Ray itself would try for ten minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in host:
        raise ValueError("give it as host:port of the head node, or as auto")
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
