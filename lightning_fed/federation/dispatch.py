"""Which work starts where and when: sites work one thing at a time, nodes and GPUs as many as they hold.

A site that works may be sent its next work ahead (`Crew.ahead`), so as not to wait for the driver in between. A
site whose process is lost is called back (`recall`), and meanwhile counts as gone.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lightning_fed.errors import FederationError
from lightning_fed.federation.crew import Crew, Lost, NoRoom

SOON = 2.0
"""Seconds until room is looked for again, where there was none for a site that is called back."""

MOST_LOSSES = 3
"""How often the same work, or a site that is called back, may be lost before nobody tries again."""


def _forget(result: Any) -> None:
    """Nothing is done with it."""


def _nobody(site: int) -> None:
    """Nothing is done with it, and no site comes back."""


@dataclass(frozen=True, eq=False)
class Job:
    """A call of a site's method.

    Args:
        site: which, or None for any. method, arguments: what. done: receives the result.
        apart: last values of the result that stay where they are, see `Crew.start`.
        lost: told the reason when the site is gone; without it the run ends. Work for any site goes to another.
        again: wait for a site that is called back, and do it there.
        deadline: by `time.monotonic()`, after which the result is not waited for; None waits.
        limit: seconds from its start, likewise.
        late: told at the deadline; without it the run ends. afterwards: receives what comes of it later.
        ahead: whether it may wait at a site that is busy. What was sent there cannot be taken back: Ray's `cancel`
            lets a method that waits in an actor run all the same (measured with 2.60).
    """

    site: int | None
    method: str
    arguments: tuple[Any, ...]
    done: Callable[[Any], None]
    apart: int = 0
    lost: Callable[[str], None] | None = None
    again: bool = False
    deadline: float | None = None
    limit: float | None = None
    late: Callable[[], None] | None = None
    afterwards: Callable[[Any], None] = _forget
    ahead: bool = True


@dataclass(frozen=True)
class Running:
    """A job at a site: in which of the site's lives, and until when it is waited for."""

    site: int
    job: Job
    life: int
    deadline: float | None


@dataclass(frozen=True)
class Search:
    """A lost site for which room is looked for: when next, and until when."""

    next: float
    end: float


class Dispatcher:
    """Starts queued jobs in their order as sites and slots become free.

    Args:
        crew: does the work.
        revive: begins to bring a lost site back: a ticket whose result says whether it is (`Lost`), `NoRoom`
            where it cannot be begun now, or None where it cannot be.
        left, returned: told of a site that is lost, and of one that is back.
        patience: seconds that a site has for finding room, and then for coming back; None waits.
    """

    def __init__(
        self,
        crew: Crew,
        revive: Callable[[int], Any] = _nobody,
        left: Callable[[int], None] = _nobody,
        returned: Callable[[int], None] = _nobody,
        patience: float | None = None,
    ) -> None:
        self.crew, self.revive, self.left, self.returned, self.patience = crew, revive, left, returned, patience
        self.queue: list[Job] = []
        self.running: dict[Any, Running] = {}
        self.gone: dict[int, str] = {}
        self.given_up: set[Job] = set()
        self.coming: dict[Any, tuple[int, float | None]] = {}
        self.seeking: dict[int, Search] = {}
        self._lives: Counter[int] = Counter()
        self._failures: Counter[int] = Counter()
        self._losses: Counter[Job] = Counter()

    @property
    def slots(self) -> int:
        """How many jobs can run at the same time at all."""
        return min(sum(self.crew.capacity.per_node.values()), len(self.crew.places))

    def submit(self, jobs: Iterable[Job]) -> None:
        """Queue jobs behind those that wait."""
        self.queue.extend(jobs)

    def step(self) -> None:
        """Start what can start, then wait for at least one job, site or deadline, and hand on what is done.

        Raises:
            FederationError: a site is gone or late whose job says nothing of that, or all of them are gone.
        """
        self._search()
        if self._start_all():  # whoever was told may have all that they wait for
            return
        if not self.running and not self.expected and not self._give_up_late():
            if len(self.gone) == len(self.crew.places):
                raise FederationError(next(iter(self.gone.values())))
            raise RuntimeError(f"{len(self.queue)} jobs wait and none can start")
        while self._hand_on() and self._time_left() == 0.0:  # what is there is not late
            pass
        self._give_up_late()
        self._start_all()

    def _hand_on(self) -> int:
        """Wait for what is done until the next deadline, and hand it on; how much it was."""
        tickets = [*self.running, *self.coming]
        if not tickets and self.seeking:
            time.sleep(self._time_left() or 0.0)
        ended = self.crew.wait(tickets, self._time_left()) if tickets else []
        for ticket, result in ended:
            if ticket in self.coming:
                self._came(self.coming.pop(ticket)[0], result)
            else:
                self._ended(self.running.pop(ticket), result)
        return len(ended)

    def _ended(self, running: Running, result: Any) -> None:
        job = running.job
        if isinstance(result, Lost):
            if result.site and running.life == self._lives[running.site] and running.site not in self.gone:
                self._lose_site(running.site, result.reason)
            if job not in self.given_up:
                self._lose(job, result.reason)
            elif job.lost is not None:
                job.lost(result.reason)
        else:
            self._losses.pop(job, None)
            (job.afterwards if job in self.given_up else job.done)(result)
        self.given_up.discard(job)

    def _lose_site(self, site: int, reason: str) -> None:
        self.gone[site] = reason
        self._lives[site] += 1
        self.left(site)
        self._recall(site)

    def recall(self) -> None:
        """Call back every site that is gone and not expected, unless it failed to come too often.

        It was waited for before: where there is no room now either, it is not looked for until the next call.
        """
        for site in sorted(set(self.gone) - self.expected):
            self._recall(site, until=time.monotonic())

    @property
    def expected(self) -> set[int]:
        """Lost sites that are called back."""
        return {site for site, _ in self.coming.values()} | set(self.seeking)

    def _recall(self, site: int, until: float | None = None) -> None:
        """Call a site back; where nothing has room for it, look again until then, or as long as patience lasts."""
        ticket = self.revive(site) if self._failures[site] < MOST_LOSSES else None
        now, patience = time.monotonic(), math.inf if self.patience is None else self.patience
        end = now + patience if until is None else until
        if isinstance(ticket, NoRoom):
            if now < end:
                self.seeking[site] = Search(min(now + SOON, end), end)
        elif ticket is not None:
            self.coming[ticket] = site, None if self.patience is None else now + patience

    def _search(self) -> None:
        """Look for room again where it is time to: for one site, as what it takes is not seen at once."""
        now = time.monotonic()
        for site, search in list(self.seeking.items()):
            if search.next > now:
                continue
            if self.coming and now < search.end:
                self.seeking[site] = Search(min(now + SOON, search.end), search.end)
                continue
            del self.seeking[site]
            self._recall(site, search.end)

    def _came(self, site: int, result: Any) -> None:
        if isinstance(result, Lost):
            self.gone[site] = result.reason
            self._failures[site] += 1
            self._recall(site)
            return
        del self.gone[site]
        self._failures.pop(site, None)
        self.returned(site)

    def give_up(self, job: Job) -> None:
        """Wait for a job no longer: one that has not started never will, of another `afterwards` is told."""
        if job in self.queue:
            self.queue.remove(job)
        elif any(job is running.job for running in self.running.values()):
            self.given_up.add(job)

    def _awaited(self) -> list[tuple[Job, float]]:
        """Jobs that somebody still waits for, but not for ever, and until when."""
        found = [(job, job.deadline) for job in self.queue]
        found += [(running.job, running.deadline) for running in self.running.values()]
        return [(job, end) for job, end in found if end is not None and job not in self.given_up]

    def _time_left(self) -> float | None:
        """Seconds until the next deadline, None without any."""
        ends = [end for _, end in self._awaited()] + [end for _, end in self.coming.values() if end is not None]
        ends += [search.next for search in self.seeking.values()]
        return max(min(ends) - time.monotonic(), 0.0) if ends else None

    def _give_up_late(self) -> int:
        """Tell the jobs whose deadline is over, and call back sites anew; how many there were."""
        now = time.monotonic()
        late = [job for job, end in self._awaited() if end <= now]
        for job in late:
            self._tell_late(job)
        missing = [ticket for ticket, (_, end) in self.coming.items() if end is not None and end <= now]
        for ticket in missing:
            site, _ = self.coming.pop(ticket)
            self._came(site, Lost(f"{self.gone[site]}; it did not come back in {self.patience:g} s"))
        return len(late) + len(missing)

    def _tell_late(self, job: Job) -> None:
        self.give_up(job)
        if job.late is None:
            raise FederationError(f"no answer to '{job.method}' in the time that the experiment allows")
        job.late()

    def _lose(self, job: Job, reason: str) -> None:
        self._losses[job] += 1
        elsewhere = job.site is None and len(self.gone) < len(self.crew.places)
        most = max(MOST_LOSSES, len(self.crew.places)) if job.site is None else MOST_LOSSES
        there = job.again and job.site not in self.gone  # only something that it was to read was lost
        if (elsewhere or there or self._waits(job)) and self._losses[job] < most:
            self.queue.insert(0, job)
            return
        del self._losses[job]
        if job.lost is None:
            raise FederationError(reason)
        job.lost(reason)

    def _waits(self, job: Job) -> bool:
        """Whether a job can be done once a site is back."""
        return bool(self.expected) if job.site is None else job.again and job.site in self.expected

    def run_until(self, finished: Callable[[], bool]) -> None:
        """Step until `finished` says so."""
        while not finished():
            self.step()

    def _start_all(self) -> int:
        """Start what can start; how many jobs were for sites that are gone, or late."""
        waiting: list[Job] = []
        lost: list[Job] = []
        late: list[Job] = []
        held_back = False  # work that waits for room, which work sent ahead would keep from it
        kept: set[int | None] = set()  # sites at whose door work waits that is not sent ahead: none overtakes it
        for job in self.queue:
            if job.site in self.gone:
                (waiting if self._waits(job) else lost).append(job)
                continue
            site = self._site_for(job)
            if site is None and not held_back and job.site not in kept and self._goes_ahead(job):
                site = job.site
            if site is None:
                waiting.append(job)
                kept |= set() if job.ahead else {job.site}
                held_back = held_back or self._at(job.site) == 0
            elif not self._start(site, job):
                late.append(job)
        self.queue = waiting
        for job in lost:
            assert job.site is not None
            self._lose(job, self.gone[job.site])
        for job in late:
            self._tell_late(job)
        return len(lost) + len(late)

    def _start(self, site: int, job: Job) -> bool:
        """Whether it could start in time: a crew in this process does the work meanwhile."""
        end = None if job.limit is None else time.monotonic() + job.limit
        ends = [end for end in (end, job.deadline) if end is not None]
        ticket = self.crew.start(site, job.method, job.arguments, job.apart)
        end = min(ends, default=None)
        self.running[ticket] = Running(site, job, self._lives[site], end)
        return end is None or time.monotonic() < end

    def _site_for(self, job: Job) -> int | None:
        candidates = range(len(self.crew.places)) if job.site is None else [job.site]
        free = [site for site in candidates if site not in self.gone and self._is_free(site)]
        if not free:
            return None
        waiting = Counter(queued.site for queued in self.queue)
        return min(free, key=lambda site: waiting[site])

    def _at(self, site: int | None) -> int:
        """How many jobs a site has."""
        return sum(running.site == site for running in self.running.values())

    def _goes_ahead(self, job: Job) -> bool:
        """Whether a job can wait at its own site, which is busy, for the work there to end."""
        return job.ahead and job.site is not None and 1 <= self._at(job.site) <= self.crew.ahead

    def _is_free(self, site: int) -> bool:
        """Whether a site can work now; one that is late takes no other's room."""
        places, capacity = self.crew.places, self.crew.capacity
        awaited = {one.site for one in self.running.values() if one.job not in self.given_up}
        place = places[site]
        on_node = sum(places[other].node == place.node for other in awaited)
        on_gpu = sum(places[other] == place for other in awaited)
        room = capacity.per_node.get(place.node, 1)  # of a node that is lost, work that is sent there tells
        gpu_is_free = place.gpu is None or on_gpu < max(capacity.per_gpu, 1)
        return self._at(site) == 0 and on_node < room and gpu_is_free
