"""The Ray cluster: starting or joining it, and how much of it a hospital takes."""

from __future__ import annotations

import logging
import math
import os
import socket
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.services import get_ray_address_from_environment

from lightning_fed.errors import InputError
from lightning_fed.experiment import Ray
from lightning_fed.federation.crew import Capacity

CONNECT_SECONDS = 5.0
SMALLEST_SHARE = 1e-4  # Ray counts resources in ten-thousandths


@dataclass(frozen=True)
class Node:
    """A living node's resources."""

    id: str
    cpus: float
    gpus: float


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
            self._check(settings)
        except InputError:
            self.close()
            raise

    @property
    def nodes(self) -> list[Node]:
        """The nodes that live now."""
        return [
            Node(node["NodeID"], node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
            for node in ray.nodes()  # type: ignore[no-untyped-call]
            if node["Alive"]
        ]

    def _check(self, settings: Ray) -> None:
        for key, wanted, kind in (
            ("cpus_per_hospital", settings.cpus_per_hospital, "cpus"),
            ("gpus_per_hospital", settings.gpus_per_hospital, "gpus"),
        ):
            most = max(getattr(node, kind) for node in self.nodes)
            if wanted > most:
                raise InputError(
                    f"ray.{key} is {wanted:g}, but no node has more than {most:g}: "
                    f"{self.description()}; lower it or add a node"
                )

    def description(self) -> str:
        """What there is, in words."""
        parts = [f"{node.cpus:g} CPUs and {node.gpus:g} GPUs" for node in self.nodes]
        return f"the cluster has {len(parts)} node{'s' * (len(parts) > 1)} ({'; '.join(parts)})"

    def capacity(self, settings: Ray) -> Capacity:
        """How many hospitals may train at the same time: the machine's size, not their number."""
        per_node = {node.id: int(node.cpus / settings.cpus_per_hospital) for node in self.nodes}
        per_gpu = int(1 / settings.gpus_per_hospital) if settings.gpus_per_hospital else 0
        return Capacity(per_node, per_gpu)

    def reservation(self, settings: Ray, actors: int) -> dict[str, Any]:
        """What each actor reserves for its life: its price, or the share at which all of them can be placed."""
        reserved: dict[str, Any] = {
            "num_cpus": _share([node.cpus for node in self.nodes], settings.cpus_per_hospital, actors)
        }
        if settings.gpus_per_hospital > 0:
            gpus = [1.0 for node in self.nodes for _ in range(int(node.gpus))]
            reserved["num_gpus"] = _share(gpus, settings.gpus_per_hospital, actors)
        return reserved

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        if self.ours:
            ray.shutdown()


def _share(capacities: list[float], wanted: float, actors: int) -> float:
    """The greatest share, at most `wanted`, of which the capacities hold one for each actor."""
    candidates = {
        min(wanted, math.floor(capacity / count / SMALLEST_SHARE) * SMALLEST_SHARE)
        for capacity in capacities
        for count in range(1, actors + 1)
    }
    fitting = [
        share
        for share in candidates
        if share > 0 and sum(int(capacity / share + 1e-9) for capacity in capacities) >= actors
    ]
    return round(max(fitting, default=SMALLEST_SHARE), 4)


def _connect(address: str | None) -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        ray.init(address="local", include_dashboard=False, **options)
        return
    try:
        _check_answers(get_ray_address_from_environment(address, None))
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
