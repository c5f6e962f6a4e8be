"""The `ray.remote` shell around a site, and the crew of such actors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lightning_fed.errors import FederationError, InputError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.aggregator import Shard, Shards
from lightning_fed.federation.cluster import Cluster
from lightning_fed.federation.crew import Capacity, Lost, Place
from lightning_fed.federation.lean import lean_imports
from lightning_fed.federation.memory import keep_freed_memory, return_much_freed_memory
from lightning_fed.secagg.masks import Mask, Words
from lightning_fed.secagg.shard import slices

if TYPE_CHECKING:
    from lightning_fed.data.images import ImageData
    from lightning_fed.federation.roster import Member


class HospitalActor:
    """Runs in a Ray worker; imports Lightning leanly there, which halves the start of ten hospitals."""

    def __init__(
        self, experiment: Experiment, data: ImageData, members: Sequence[Member], output: Path | None
    ) -> None:
        keep_freed_memory()
        with lean_imports():
            from lightning_fed.federation.site import Site
        self.site = Site(experiment, data, members, output)

    def place(self) -> Place:
        """Where Ray put this actor."""
        context = ray.get_runtime_context()
        gpus = context.get_accelerator_ids().get("GPU", [])
        return Place(context.get_node_id(), gpus[0] if gpus else None)

    def work(self, method: str, *arguments: Any) -> Any:
        """A method of the site; of some tuples the driver passes all but the first value on by reference."""
        begun = time.perf_counter()
        result = getattr(self.site, method)(*arguments)
        return_much_freed_memory(time.perf_counter() - begun)
        return result


class ActorCrew:
    """One actor for each group of hospitals, placed over the cluster.

    Actors are never restarted or retried by Ray: a repeated call would train twice.

    Args:
        cluster: where. experiment: the whole run's. data: put into the object store once.
        groups: the hospitals of each actor. output: run folder, or None.

    Raises:
        InputError: the actors cannot be placed or built in `ray.startup_timeout` seconds.
    """

    ahead = 1

    def __init__(
        self,
        cluster: Cluster,
        experiment: Experiment,
        data: ImageData,
        groups: Sequence[Sequence[Member]],
        output: Path | None,
    ) -> None:
        self.cluster, self.settings = cluster, experiment.ray
        self.actors_beside: list[Any] = []
        reference = ray.put(data)
        shell = ray.remote(max_restarts=0, max_task_retries=0)(HospitalActor)
        self.actors: list[Any] = [
            shell.options(**seat.options).remote(experiment, reference, group, output)
            for seat, group in zip(cluster.seats(experiment.ray, len(groups)), groups, strict=True)
        ]
        self.places: Sequence[Place] = self._places(experiment.ray.startup_timeout)
        self.capacity: Capacity = cluster.capacity(experiment.ray)

    def _places(self, timeout: float) -> list[Place]:
        try:
            places: list[Place] = _get([actor.place.remote() for actor in self.actors], timeout)
        except GetTimeoutError:
            self.close()
            raise InputError(
                f"ray.startup_timeout: {len(self.actors)} hospital actors were not ready after {timeout:g} s; "
                f"{self.cluster.description()}; wait for other jobs to end or raise the limit"
            ) from None
        return places

    def put(self, value: Any) -> Any:
        """A reference to the value in the object store."""
        return ray.put(value)

    def start(self, site: int, method: str, arguments: tuple[Any, ...], apart: int = 0) -> Any:
        """Send the call; the ticket holds a reference to each object that comes of it."""
        work = self.actors[site].work
        if apart:
            return tuple(work.options(num_returns=1 + apart).remote(method, *arguments))
        return (work.remote(method, *arguments),)

    def wait(self, tickets: Sequence[Any], seconds: float | None = None) -> list[tuple[Any, Any]]:
        """Those whose first object is there; the others are handed on as references."""
        by_reference = {ticket[0]: ticket for ticket in tickets}
        ready, _ = ray.wait(list(by_reference), num_returns=1, timeout=seconds)
        return [(by_reference[reference], _result(by_reference[reference])) for reference in ready]

    def open_shards(self, count: int) -> Shards:
        """Actors that hold no CPU: on the driver's node, whose loss ends the run anyway, then on others."""
        here = ray.get_runtime_context().get_node_id()
        others = sorted(node.id for node in self.cluster.usable(self.settings) if node.id != here)
        shards = ActorShards(count, [here, *others])
        self.actors_beside.extend(shards.actors)
        return shards

    def fetch(self, value: Any) -> Any:
        """The object, without a copy where it lies on this node."""
        return _get(value)

    def close(self) -> None:
        """End the actors, and the cluster where it was started for them."""
        for actor in [*self.actors, *self.actors_beside]:
            ray.kill(actor)
        self.cluster.close()


class ActorShards:
    """One actor for each shard of the aggregator; slices reach it from hospitals by reference.

    A hospital's slices are sent when those of the one before are in, so that a shard never has more than one in
    hand and one on its way.
    """

    def __init__(self, count: int, nodes: Sequence[str]) -> None:
        self.count = count
        shell = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(Shard)
        strategies = [NodeAffinitySchedulingStrategy(node, soft=True) for node in nodes]
        self.actors: list[Any] = [
            shell.options(scheduling_strategy=strategies[shard % len(strategies)]).remote()
            for shard in range(count)
        ]
        self._adding: list[Any] = []

    def begin(self, length: int, ring_bits: int) -> None:
        """Start a round's sum of vectors of a length; what is left of a round before it is dropped."""
        self._adding = []
        begun = [
            actor.begin.remote(start, stop, ring_bits)
            for actor, (start, stop) in zip(self.actors, slices(length, self.count), strict=True)
        ]
        _get(begun)

    def add(self, parts: Sequence[Any]) -> None:
        """Hand references on."""
        _get(self._adding)
        self._adding = [actor.add.remote(part) for actor, part in zip(self.actors, parts, strict=True)]

    def open(self, masks: Sequence[Mask]) -> Words:
        """Take the masks away, all shards at the same time."""
        _get(self._adding)
        self._adding = []
        reference = ray.put(masks)
        return np.concatenate(_get([actor.open.remote(reference) for actor in self.actors]))


class LostError(FederationError):
    """An actor, its node or an object is gone."""


def _result(ticket: tuple[Any, ...]) -> Any:
    """What came of a call: the first object, with references to the others if there are any."""
    try:
        first = _get(ticket[0])
    except LostError as error:
        return Lost(str(error))
    return (first, *ticket[1:]) if ticket[1:] else first


def _get(reference: Any, timeout: float | None = None) -> Any:
    """The object, or the objects of a list.

    Raises:
        InputError, FederationError: as the actor raised it.
        LostError: the actor, its node or the object is gone, with Ray's reason.
        GetTimeoutError: it did not come in time.
    """
    try:
        return ray.get(reference, timeout=timeout)
    except GetTimeoutError:
        raise
    except RayTaskError as error:
        if isinstance(error.cause, InputError | FederationError):
            raise error.cause from None
        if isinstance(error.cause, RayError):
            raise LostError(f"an object that a hospital sent was lost ({type(error.cause).__name__})") from error
        raise
    except RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raised_here = [line for line in lines if "lightning_fed.errors.InputError:" in line]
        if raised_here:  # in the actor's construction, of which Ray keeps the text alone
            raise InputError(raised_here[-1].split("InputError:", 1)[1].strip()) from None
        raise LostError(f"a hospital's process or its update was lost ({_cause(lines)})") from error


def _cause(lines: Sequence[str]) -> str:
    """Ray's reason in a few words: its last line, unless that is a page of advice on memory."""
    if any("out of memory" in line.lower() or "OOM" in line for line in lines):
        return "Ray ended it because its node was short of memory; let fewer hospitals train at the same time"
    return lines[-1]
