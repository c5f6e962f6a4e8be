"""The `ray.remote` shell around a site, and the crew of such actors."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError

from lightning_fed.errors import FederationError, InputError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.aggregator import Shards
from lightning_fed.federation.cluster import Cluster, Seat
from lightning_fed.federation.crew import Capacity, Lost, NoRoom, Place
from lightning_fed.federation.holding import hold_hospital
from lightning_fed.federation.lean import lean_imports
from lightning_fed.federation.memory import keep_freed_memory, return_much_freed_memory
from lightning_fed.federation.remote import LostError, fetch, put
from lightning_fed.federation.shards import ActorShards

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
        self.held = [] if output is None else [hold_hospital(output, member.hospital) for member in members]
        self.site = Site(experiment, data, members, output)

    def place(self) -> Place:
        """Where Ray put this actor."""
        context = ray.get_runtime_context()
        gpus = context.get_accelerator_ids().get("GPU", [])
        return Place(context.get_node_id(), gpus[0] if gpus else None)

    def come_back(self, rounds: Mapping[int, int]) -> Place:
        """Take up the states that hospitals had at the end of `rounds`, in place of a process that was lost."""
        for hospital, round in rounds.items():
            self.site.restore(hospital, round)
        return self.place()

    def work(self, method: str, *arguments: Any) -> Any:
        """A method of the site; of some tuples the driver passes all but the first value on by reference."""
        begun = time.perf_counter()
        result = getattr(self.site, method)(*arguments)
        return_much_freed_memory(time.perf_counter() - begun)
        return result


class ActorCrew:
    """One actor for each group of hospitals, placed over the cluster.

    Actors are never restarted or retried by Ray: a repeated call would train twice. One that is lost comes back by
    `revive` alone, with its hospitals' own states. Their calls are not told to Ray's dashboard, which would keep
    each of them in memory for as long as the run lasts.

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
        self.cluster, self.experiment, self.groups, self.output = cluster, experiment, groups, output
        self.shards: list[ActorShards] = []
        self._closed = False
        self._data = put(data)
        self._coming: dict[Any, int] = {}
        seats = cluster.seats(experiment.ray, len(groups))
        self.actors: list[Any] = [self._actor(site, seat) for site, seat in enumerate(seats)]
        self.places: Sequence[Place] = self._places(experiment.ray.startup_timeout)
        self.capacity: Capacity = cluster.capacity(experiment.ray)

    def _actor(self, site: int, seat: Seat) -> Any:
        shell = ray.remote(max_restarts=0, max_task_retries=0)(HospitalActor)
        arguments = (self.experiment, self._data, self.groups[site], self.output)
        return shell.options(**seat.options, enable_task_events=False).remote(*arguments)

    def _places(self, timeout: float) -> list[Place]:
        try:
            places: list[Place] = fetch([actor.place.remote() for actor in self.actors], timeout)
        except GetTimeoutError:
            self.close()
            raise InputError(
                f"ray.startup_timeout: {len(self.actors)} hospital actors were not ready after {timeout:g} s; "
                f"{self.cluster.description()}; wait for other jobs to end or raise the limit"
            ) from None
        return places

    def put(self, value: Any) -> Any:
        """A reference to the value in the object store.

        Raises:
            FederationError: the store is full, and the disk to which it spills.
        """
        return put(value)

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
        return [(by_reference[reference], self._result(by_reference[reference])) for reference in ready]

    def _result(self, ticket: tuple[Any, ...]) -> Any:
        """What came of a call: the first object, with references to the others if there are any."""
        site = self._coming.pop(ticket, None)
        try:
            first = fetch(ticket[0])
        except (InputError, FederationError) as error:
            if site is None and not isinstance(error, LostError):
                raise
            of_object = isinstance(error, LostError) and error.of_object
            return Lost(str(error), site=not of_object)  # one that cannot come back is no end for the others
        if site is not None:
            self.places = [first if one == site else place for one, place in enumerate(self.places)]
            now = self.cluster.capacity(self.experiment.ray)  # sites may be on nodes whose loss nobody has met yet
            self.capacity = Capacity(self.capacity.per_node | now.per_node, now.per_gpu)
        return (first, *ticket[1:]) if ticket[1:] else first

    def revive(self, site: int, rounds: Mapping[int, int]) -> Any:
        """A new actor on the old one's node, else on another that has room; the old one is ended for certain."""
        ray.kill(self.actors[site])
        seat = self.cluster.seat_again(self.experiment.ray, self.places[site].node)
        if seat is None:
            return NoRoom()
        self.actors[site] = self._actor(site, seat)
        ticket = (self.actors[site].come_back.remote(rounds),)
        self._coming[ticket] = site
        return ticket

    def open_shards(self, count: int) -> Shards:
        """Actors that hold no CPU: on the driver's node, whose loss ends the run anyway, then on others."""
        here = ray.get_runtime_context().get_node_id()
        others = sorted(node.id for node in self.cluster.usable(self.experiment.ray) if node.id != here)
        answer, startup = self.experiment.secagg.stage_timeout, self.experiment.ray.startup_timeout
        try:
            shards = ActorShards(count, [here, *others], answer, startup)
        except GetTimeoutError:
            raise InputError(
                f"ray.startup_timeout: the aggregator's processes did not answer in {startup:g} s; raise it"
            ) from None
        self.shards.append(shards)
        return shards

    def fetch(self, value: Any) -> Any:
        """The object, without a copy where it lies on this node.

        Raises:
            LostError: it is gone, or does not come in `secagg.stage_timeout`.
        """
        limit = self.experiment.secagg.stage_timeout
        try:
            return fetch(value, limit)
        except GetTimeoutError:
            told = f"an update could not be fetched in {limit:g} s (secagg.stage_timeout)"
            raise LostError(told, of_object=True) from None

    def close(self) -> None:
        """End the actors, and the cluster where it was started for them; once."""
        if self._closed:
            return
        self._closed = True
        for actor in [*self.actors, *(actor for shards in self.shards for actor in shards.actors)]:
            ray.kill(actor)
        self.cluster.close()
