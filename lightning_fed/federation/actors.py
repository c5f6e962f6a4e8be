"""The `ray.remote` shell around a site, and the crew of such actors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from lightning_fed.errors import FederationError, InputError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.cluster import Cluster
from lightning_fed.federation.crew import Capacity, Place
from lightning_fed.federation.lean import lean_imports
from lightning_fed.federation.memory import keep_freed_memory, return_much_freed_memory

if TYPE_CHECKING:
    from lightning_fed.data.images import ImageData
    from lightning_fed.federation.roster import Member

UPDATE_APART = "fit"


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

    def fit(self, hospital: int, round: int, weights: Any) -> Any:
        """Two objects: the report, which the driver reads, and the update, which it only passes on."""
        return self._done(self.site.fit(hospital, round, weights))

    def work(self, method: str, *arguments: Any) -> Any:
        """Any other method of the site."""
        return self._done(getattr(self.site, method)(*arguments))

    def _done(self, result: Any) -> Any:
        return_much_freed_memory()
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

    def __init__(
        self,
        cluster: Cluster,
        experiment: Experiment,
        data: ImageData,
        groups: Sequence[Sequence[Member]],
        output: Path | None,
    ) -> None:
        self.cluster = cluster
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

    def start(self, site: int, method: str, arguments: tuple[Any, ...]) -> Any:
        """Send the call; for `fit` the ticket pairs the references of report and update."""
        actor = self.actors[site]
        if method == UPDATE_APART:
            return tuple(actor.fit.options(num_returns=2).remote(*arguments))
        return (actor.work.remote(method, *arguments),)

    def wait(self, tickets: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Those whose first object is there; an update is handed on as a reference."""
        by_reference = {ticket[0]: ticket for ticket in tickets}
        ready, _ = ray.wait(list(by_reference), num_returns=1)
        done = [by_reference[reference] for reference in ready]
        return [(ticket, (_get(ticket[0]), *ticket[1:]) if ticket[1:] else _get(ticket[0])) for ticket in done]

    def fetch(self, value: Any) -> Any:
        """The object, without a copy where it lies on this node."""
        return _get(value)

    def close(self) -> None:
        """End the actors, and the cluster where it was started for them."""
        for actor in self.actors:
            ray.kill(actor)
        self.cluster.close()


def _get(reference: Any, timeout: float | None = None) -> Any:
    """The object.

    Raises:
        InputError, FederationError: as the actor raised it.
        FederationError: the actor, its node or the object was lost, with Ray's reason.
        GetTimeoutError: it did not come in time.
    """
    try:
        return ray.get(reference, timeout=timeout)
    except GetTimeoutError:
        raise
    except RayTaskError as error:
        if isinstance(error.cause, InputError | FederationError):
            raise error.cause from None
        raise
    except RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raised_here = [line for line in lines if "lightning_fed.errors.InputError:" in line]
        if raised_here:  # in the actor's construction, of which Ray keeps the text alone
            raise InputError(raised_here[-1].split("InputError:", 1)[1].strip()) from None
        raise FederationError(f"a hospital's process or its update was lost ({lines[-1]})") from error
