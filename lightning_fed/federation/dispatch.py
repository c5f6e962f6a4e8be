"""Which work starts where and when: sites work one thing at a time, nodes and GPUs as many as they hold.

A site that works may be sent its next work ahead (`Crew.ahead`), so as not to wait for the driver in between.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lightning_fed.errors import FederationError
from lightning_fed.federation.crew import Crew, Lost


def _forget(result: Any) -> None:
    """Nothing is done with it."""


@dataclass(frozen=True, eq=False)
class Job:
    """A call of a site's method.

    Args:
        site: which, or None for any. method, arguments: what. done: receives the result.
        apart: last values of the result that stay where they are, see `Crew.start`.
        lost: told the reason when the site is gone; without it the run ends. Work for any site goes to another.
        deadline: by `time.monotonic()`, after which the result is not waited for; None waits.
        late: told at the deadline; without it the run ends. afterwards: receives what comes of it later.
    """

    site: int | None
    method: str
    arguments: tuple[Any, ...]
    done: Callable[[Any], None]
    apart: int = 0
    lost: Callable[[str], None] | None = None
    deadline: float | None = None
    late: Callable[[], None] | None = None
    afterwards: Callable[[Any], None] = _forget


class Dispatcher:
    """Starts queued jobs in their order as sites and slots become free."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.queue: list[Job] = []
        self.running: dict[Any, tuple[int, Job]] = {}
        self.gone: dict[int, str] = {}
        self.given_up: set[Job] = set()

    @property
    def slots(self) -> int:
        """How many jobs can run at the same time at all."""
        return min(sum(self.crew.capacity.per_node.values()), len(self.crew.places))

    def submit(self, jobs: Iterable[Job]) -> None:
        """Queue jobs behind those that wait."""
        self.queue.extend(jobs)

    def step(self) -> None:
        """Start what can start, then wait for at least one job, or deadline, and hand on what is done.

        Raises:
            FederationError: a site is gone or late whose job says nothing of that, or all of them are gone.
        """
        moved = self._start_all() + self._give_up_late()
        if moved and not self.running:
            return
        if not self.running:
            if len(self.gone) == len(self.crew.places):
                raise FederationError(next(iter(self.gone.values())))
            raise RuntimeError(f"{len(self.queue)} jobs wait and none can start")
        for ticket, result in self.crew.wait(list(self.running), self._patience()):
            site, job = self.running.pop(ticket)
            if isinstance(result, Lost):
                self.gone[site] = result.reason
                if job not in self.given_up:
                    self._lose(job, result.reason)
                elif job.lost is not None:
                    job.lost(result.reason)
            elif job in self.given_up:
                job.afterwards(result)
            else:
                job.done(result)
            self.given_up.discard(job)
        self._give_up_late()
        self._start_all()

    def give_up(self, job: Job) -> None:
        """Wait for a job no longer: one that has not started never will, of another `afterwards` is told."""
        if job in self.queue:
            self.queue.remove(job)
        elif any(job is running for _, running in self.running.values()):
            self.given_up.add(job)

    def _awaited(self) -> list[Job]:
        """Jobs with a deadline that somebody still waits for."""
        jobs = [*self.queue, *(job for _, job in self.running.values())]
        return [job for job in jobs if job.deadline is not None and job not in self.given_up]

    def _patience(self) -> float | None:
        """Seconds until the next deadline, None without any."""
        deadlines = [job.deadline for job in self._awaited() if job.deadline is not None]
        return max(min(deadlines) - time.monotonic(), 0.0) if deadlines else None

    def _give_up_late(self) -> int:
        """Tell the jobs whose deadline is over; how many there were."""
        now = time.monotonic()
        late = [job for job in self._awaited() if job.deadline is not None and job.deadline <= now]
        for job in late:
            self.give_up(job)
            if job.late is None:
                raise FederationError(f"no answer to '{job.method}' in the time that the experiment allows")
            job.late()
        return len(late)

    def _lose(self, job: Job, reason: str) -> None:
        if job.site is None and len(self.gone) < len(self.crew.places):
            self.queue.insert(0, job)
        elif job.lost is None:
            raise FederationError(reason)
        else:
            job.lost(reason)

    def run_until(self, finished: Callable[[], bool]) -> None:
        """Step until `finished` says so."""
        while not finished():
            self.step()

    def _start_all(self) -> int:
        """Start what can start; how many jobs were for sites that are gone."""
        waiting: list[Job] = []
        lost = []
        held_back = False  # work that waits for room, which work sent ahead would keep from it
        for job in self.queue:
            if job.site in self.gone:
                lost.append(job)
                continue
            site = self._site_for(job)
            if site is None and not held_back and self._goes_ahead(job):
                site = job.site
            if site is None:
                waiting.append(job)
                held_back = held_back or self._at(job.site) == 0
            else:
                ticket = self.crew.start(site, job.method, job.arguments, job.apart)
                self.running[ticket] = (site, job)
        self.queue = waiting
        for job in lost:
            assert job.site is not None
            self._lose(job, self.gone[job.site])
        return len(lost)

    def _site_for(self, job: Job) -> int | None:
        candidates = range(len(self.crew.places)) if job.site is None else [job.site]
        free = [site for site in candidates if site not in self.gone and self._is_free(site)]
        if not free:
            return None
        waiting = Counter(queued.site for queued in self.queue)
        return min(free, key=lambda site: waiting[site])

    def _at(self, site: int | None) -> int:
        """How many jobs a site has."""
        return sum(running == site for running, _ in self.running.values())

    def _goes_ahead(self, job: Job) -> bool:
        """Whether a job can wait at its own site, which is busy, for the work there to end."""
        return job.site is not None and 1 <= self._at(job.site) <= self.crew.ahead

    def _is_free(self, site: int) -> bool:
        places, capacity = self.crew.places, self.crew.capacity
        busy = {running for running, _ in self.running.values()}
        place = places[site]
        on_node = sum(places[other].node == place.node for other in busy)
        on_gpu = sum(places[other] == place for other in busy)
        gpu_is_free = place.gpu is None or on_gpu < max(capacity.per_gpu, 1)
        return site not in busy and on_node < capacity.per_node[place.node] and gpu_is_free
