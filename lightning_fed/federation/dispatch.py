"""Which work starts where and when: sites work one thing at a time, nodes and GPUs as many as they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lightning_fed.federation.crew import Crew


@dataclass(frozen=True)
class Job:
    """A call of a site's method.

    Args:
        site: which, or None for any. method, arguments: what. done: receives the result.
    """

    site: int | None
    method: str
    arguments: tuple[Any, ...]
    done: Callable[[Any], None]


class Dispatcher:
    """Starts queued jobs in their order as sites and slots become free."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.queue: list[Job] = []
        self.running: dict[Any, tuple[int, Job]] = {}

    @property
    def slots(self) -> int:
        """How many jobs can run at the same time at all."""
        return min(sum(self.crew.capacity.per_node.values()), len(self.crew.places))

    def submit(self, jobs: Iterable[Job]) -> None:
        """Queue jobs behind those that wait."""
        self.queue.extend(jobs)

    def step(self) -> None:
        """Start what can start, then wait for at least one job and hand on what is done."""
        self._start_all()
        if not self.running:
            raise RuntimeError(f"{len(self.queue)} jobs wait and none can start")
        for ticket, result in self.crew.wait(list(self.running)):
            _, job = self.running.pop(ticket)
            job.done(result)
        self._start_all()

    def run_until(self, finished: Callable[[], bool]) -> None:
        """Step until `finished` says so."""
        while not finished():
            self.step()

    def _start_all(self) -> None:
        waiting = []
        for job in self.queue:
            site = self._site_for(job)
            if site is None:
                waiting.append(job)
            else:
                self.running[self.crew.start(site, job.method, job.arguments)] = (site, job)
        self.queue = waiting

    def _site_for(self, job: Job) -> int | None:
        candidates = range(len(self.crew.places)) if job.site is None else [job.site]
        free = [site for site in candidates if self._is_free(site)]
        if not free:
            return None
        waiting = Counter(queued.site for queued in self.queue)
        return min(free, key=lambda site: waiting[site])

    def _is_free(self, site: int) -> bool:
        places, capacity = self.crew.places, self.crew.capacity
        busy = [running for running, _ in self.running.values()]
        place = places[site]
        on_node = sum(places[other].node == place.node for other in busy)
        on_gpu = sum(places[other] == place for other in busy)
        gpu_is_free = place.gpu is None or on_gpu < max(capacity.per_gpu, 1)
        return site not in busy and on_node < capacity.per_node[place.node] and gpu_is_free
