import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.errors import FederationError
from lightning_fed.federation import dispatch
from lightning_fed.federation.crew import Capacity, LocalCrew, Lost, NoRoom, Place
from lightning_fed.federation.dispatch import Dispatcher, Job


class Rehearsal:
    """A crew whose work is noted and ends in a random order; it refuses to be overloaded."""

    def __init__(self, places: Sequence[Place], capacity: Capacity, seed: int = 0, ahead: int = 0) -> None:
        self.places, self.capacity, self.ahead = places, capacity, ahead
        self.random = random.Random(seed)
        self.busy: dict[int, int] = {}
        self.started: list[tuple[int, tuple[Any, ...]]] = []
        self.most: Counter[Any] = Counter()

    def put(self, value: Any) -> Any:
        return value

    def start(self, site: int, method: str, arguments: tuple[Any, ...], apart: int = 0) -> int:
        assert list(self.busy.values()).count(site) <= self.ahead, f"site {site} is given too many jobs"
        ticket = len(self.started)
        self.busy[ticket] = site
        self.started.append((site, arguments))
        busy = set(self.busy.values())
        nodes = Counter(self.places[other].node for other in busy)
        gpus = Counter(self.places[other] for other in busy if self.places[other].gpu is not None)
        assert all(count <= self.capacity.per_node[node] for node, count in nodes.items()), "a node is overloaded"
        assert all(count <= self.capacity.per_gpu for count in gpus.values()), "a GPU is overloaded"
        self.most |= nodes
        return ticket

    def wait(self, tickets: Sequence[int], seconds: float | None = None) -> list[tuple[int, Any]]:
        assert sorted(tickets) == sorted(self.busy)
        done = self.random.sample(sorted(tickets), self.random.randint(1, len(tickets)))
        for ticket in done:
            del self.busy[ticket]
        return [(ticket, self.started[ticket][1]) for ticket in done]

    def fetch(self, value: Any) -> Any:
        return value

    def close(self) -> None:
        pass


@st.composite
def crews(draw: st.DrawFn) -> Rehearsal:
    nodes = {name: draw(st.integers(1, 4)) for name in ("a", "b", "c")[: draw(st.integers(1, 3))]}
    gpus = draw(st.sampled_from([[None], ["0"], ["0", "1"]]))
    place = st.builds(Place, st.sampled_from(sorted(nodes)), st.sampled_from(gpus))
    places = draw(st.lists(place, min_size=1, max_size=8))
    return Rehearsal(
        places, Capacity(nodes, draw(st.integers(1, 3))), draw(st.integers(0, 1000)), draw(st.integers(0, 2))
    )


@given(crew=crews(), data=st.data())
def test_all_jobs_are_done_once_and_no_site_node_or_gpu_is_overloaded(
    crew: Rehearsal, data: st.DataObject
) -> None:
    sites = st.none() | st.integers(0, len(crew.places) - 1)
    wanted = data.draw(st.lists(sites, min_size=1, max_size=25))
    done: list[tuple[int]] = []
    dispatcher = Dispatcher(crew)
    dispatcher.submit(Job(site, "work", (number,), done.append) for number, site in enumerate(wanted))
    dispatcher.run_until(lambda: len(done) == len(wanted))
    assert sorted(done) == [(number,) for number in range(len(wanted))]
    assert not dispatcher.queue
    assert not dispatcher.running
    for site, (number,) in crew.started:
        assert wanted[number] in (None, site)


@given(crew=crews(), data=st.data())
def test_the_jobs_of_one_site_start_in_their_order(crew: Rehearsal, data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.integers(0, len(crew.places) - 1), min_size=1, max_size=25))
    done: list[Any] = []
    dispatcher = Dispatcher(crew)
    dispatcher.submit(Job(site, "work", (number,), done.append) for number, site in enumerate(wanted))
    dispatcher.run_until(lambda: len(done) == len(wanted))
    for site in set(wanted):
        numbers = [number for at, (number,) in crew.started if at == site]
        assert numbers == sorted(numbers)


@given(seed=st.integers(0, 1000), jobs=st.integers(1, 20), ahead=st.integers(0, 1))
def test_where_there_is_one_slot_jobs_start_strictly_in_their_order(seed: int, jobs: int, ahead: int) -> None:
    crew = Rehearsal([Place("a", None)] * 4, Capacity({"a": 1}, 1), seed, ahead)
    done: list[Any] = []
    dispatcher = Dispatcher(crew)
    dispatcher.submit(Job(number % 4, "work", (number,), done.append) for number in range(jobs))
    dispatcher.run_until(lambda: len(done) == jobs)
    assert [number for _, (number,) in crew.started] == list(range(jobs))


def test_a_node_is_filled_to_its_capacity() -> None:
    crew = Rehearsal([Place("a", None)] * 5 + [Place("b", None)], Capacity({"a": 3, "b": 1}, 1))
    done: list[Any] = []
    dispatcher = Dispatcher(crew)
    dispatcher.submit(Job(site, "work", (site,), done.append) for site in range(6))
    dispatcher.step()
    assert crew.most == {"a": 3, "b": 1}


def test_a_busy_site_is_sent_its_next_job_ahead_unless_another_site_waits_for_the_room() -> None:
    crew = Rehearsal([Place("a", None)] * 2, Capacity({"a": 1}, 1), ahead=1)
    done: list[Any] = []
    dispatcher = Dispatcher(crew)
    crew.wait = lambda tickets, seconds: []  # type: ignore[method-assign]
    dispatcher.submit(Job(0, "work", (number,), done.append) for number in range(3))
    dispatcher.step()
    assert [number for _, (number,) in crew.started] == [0, 1], "and no more than one"
    dispatcher = Dispatcher(Rehearsal([Place("a", None)] * 2, Capacity({"a": 1}, 1), ahead=1))
    dispatcher.crew.wait = lambda tickets, seconds: []  # type: ignore[method-assign]
    dispatcher.submit(Job(site, "work", (number,), done.append) for number, site in enumerate([0, 1, 0]))
    dispatcher.step()
    assert dispatcher.crew.started == [(0, (0,))]  # type: ignore[attr-defined]


def test_work_for_anybody_goes_to_a_site_that_nothing_waits_for() -> None:
    crew = Rehearsal([Place("a", None)] * 2, Capacity({"a": 1}, 1))
    done: list[Any] = []
    dispatcher = Dispatcher(crew)
    dispatcher.submit([Job(None, "work", ("any",), done.append), Job(0, "work", ("own",), done.append)])
    dispatcher.step()
    assert crew.started[0] == (1, ("any",))


def test_work_submitted_by_finished_work_is_done_too() -> None:
    crew = Rehearsal([Place("a", None)], Capacity({"a": 1}, 1))
    done: list[Any] = []
    dispatcher = Dispatcher(crew)
    follow_up = Job(0, "work", ("second",), done.append)
    dispatcher.submit([Job(0, "work", ("first",), lambda result: dispatcher.submit([follow_up]))])
    dispatcher.run_until(lambda: bool(done))
    assert done == [("second",)]


def test_slots_are_bounded_by_sites_and_by_nodes() -> None:
    few_sites = Rehearsal([Place("a", None)] * 2, Capacity({"a": 8}, 1))
    few_slots = Rehearsal([Place("a", None)] * 9, Capacity({"a": 2, "b": 1}, 1))
    assert (Dispatcher(few_sites).slots, Dispatcher(few_slots).slots) == (2, 3)


def test_jobs_that_can_never_start_are_an_error_and_not_a_hang() -> None:
    dispatcher = Dispatcher(Rehearsal([Place("a", None)], Capacity({"a": 0}, 1)))
    dispatcher.submit([Job(0, "work", (), print)])
    with pytest.raises(RuntimeError, match="1 jobs wait and none can start"):
        dispatcher.step()


def test_where_every_site_is_gone_the_run_ends_with_the_reason() -> None:
    crew = Rehearsal([Place("a", None)], Capacity({"a": 1}, 1))
    crew.wait = lambda tickets, seconds: [(ticket, Lost("killed")) for ticket in tickets]  # type: ignore[method-assign]
    dispatcher = Dispatcher(crew)
    lost: list[str] = []
    dispatcher.submit([Job(0, "work", (), print, lost=lost.append), Job(None, "work", (), print)])
    with pytest.raises(FederationError, match="killed"):
        dispatcher.run_until(lambda: False)
    assert lost == ["killed"]


class Adder:
    def add(self, one: int, other: int) -> int:
        return one + other


def test_the_crew_of_this_process_does_every_job_at_once() -> None:
    done: list[int] = []
    dispatcher = Dispatcher(LocalCrew(Adder()))
    dispatcher.submit(Job(site, "add", (number, 10), done.append) for number, site in enumerate([0, None, 0]))
    dispatcher.run_until(lambda: len(done) == 3)
    assert done == [10, 11, 12]


class Slow(Rehearsal):
    """A crew in which nothing ends until it is told to, and time passes by waiting."""

    def __init__(self, sites: int) -> None:
        super().__init__([Place("a", None)] * sites, Capacity({"a": sites}, 1))
        self.finished: list[int] = []

    def wait(self, tickets: Sequence[int], seconds: float | None = None) -> list[tuple[int, Any]]:
        ready = [ticket for ticket in tickets if ticket in self.finished]
        if not ready:
            assert seconds is not None, "this would wait for ever"
            time.sleep(seconds)
        for ticket in ready:
            del self.busy[ticket]
        return [(ticket, self.started[ticket][1]) for ticket in ready]


def told_job(site: int | None, told: list[Any], seconds: float = 0.02) -> Job:
    return Job(
        site,
        "work",
        (site,),
        lambda result: told.append(("done", *result)),
        lost=lambda reason: told.append(("lost", reason)),
        deadline=time.monotonic() + seconds,
        late=lambda: told.append(("late", site)),
        afterwards=lambda result: told.append(("afterwards", *result)),
    )


def test_what_is_late_is_told_once_and_again_when_it_comes() -> None:
    crew, told = Slow(2), list[Any]()
    dispatcher = Dispatcher(crew)
    dispatcher.submit([told_job(0, told), told_job(1, told)])
    crew.finished = [0]
    dispatcher.run_until(lambda: len(told) == 2)
    assert told == [("done", 0), ("late", 1)]
    crew.finished = [0, 1]
    dispatcher.submit([told_job(0, told, seconds=60)])
    crew.finished.append(2)
    dispatcher.run_until(lambda: len(told) == 4)
    assert set(told[2:]) == {("afterwards", 1), ("done", 0)}


def test_a_site_that_is_late_gets_its_next_work_when_it_is_free_again() -> None:
    crew, told = Slow(1), list[Any]()
    dispatcher = Dispatcher(crew)
    dispatcher.submit([told_job(0, told)])
    dispatcher.run_until(lambda: told == [("late", 0)])
    dispatcher.submit([told_job(0, told)])
    dispatcher.run_until(lambda: len(told) == 2)
    assert told[1] == ("late", 0), "it was never started"
    assert len(crew.started) == 1
    assert not dispatcher.queue
    crew.finished = [0, 1]
    dispatcher.submit([told_job(0, told, seconds=60)])
    dispatcher.run_until(lambda: len(told) == 4)
    assert told[2:] == [("afterwards", 0), ("done", 0)]


def test_work_that_is_given_up_before_it_starts_never_does() -> None:
    crew, told = Slow(1), list[Any]()
    dispatcher = Dispatcher(crew)
    first, second = told_job(0, told, seconds=60), told_job(0, told, seconds=60)
    dispatcher.submit([first, second])
    dispatcher.give_up(second)
    crew.finished = [0]
    dispatcher.run_until(lambda: bool(told))
    assert (told, dispatcher.queue, len(crew.started)) == ([("done", 0)], [], 1)


def test_a_deadline_that_nobody_minds_ends_the_run() -> None:
    dispatcher = Dispatcher(Slow(1))
    dispatcher.submit([Job(0, "work", (), print, deadline=time.monotonic() + 0.01)])
    with pytest.raises(FederationError, match="no answer to 'work' in the time"):
        dispatcher.run_until(lambda: False)


def test_a_late_site_that_dies_is_told_as_lost() -> None:
    crew, told = Slow(2), list[Any]()
    dispatcher = Dispatcher(crew)
    dispatcher.submit([told_job(0, told)])
    dispatcher.run_until(lambda: bool(told))
    crew.wait = lambda tickets, seconds: [(ticket, Lost("killed")) for ticket in tickets]  # type: ignore[method-assign]
    dispatcher.step()
    assert told == [("late", 0), ("lost", "killed")]
    assert dispatcher.gone == {0: "killed"}


class Mortal(Rehearsal):
    """A crew whose tickets end as they are told to, in the order of their numbers."""

    def __init__(self, sites: int, ahead: int = 0) -> None:
        super().__init__([Place("a", None)] * sites, Capacity({"a": sites}, 1), ahead=ahead)
        self.ends: dict[Any, Any] = {}
        self.revived: list[int] = []

    def revive(self, site: int) -> str:
        self.revived.append(site)
        return f"back {len(self.revived)}"

    def wait(self, tickets: Sequence[Any], seconds: float | None = None) -> list[tuple[Any, Any]]:
        ready = [ticket for ticket in tickets if ticket in self.ends][:1]
        if not ready:
            assert seconds is not None, "this would wait for ever"
            time.sleep(seconds)
        for ticket in ready:
            self.busy.pop(ticket, None)
        return [(ticket, self.ends[ticket]) for ticket in ready]


def dispatcher_of(crew: Mortal, told: list[Any], patience: float | None = None) -> Dispatcher:
    def left(site: int) -> None:
        told.append(("left", site))

    def returned(site: int) -> None:
        told.append(("returned", site))

    return Dispatcher(crew, crew.revive, left, returned, patience)


def work(site: int | None, told: list[Any], again: bool) -> Job:
    done = ("done", site)
    return Job(site, "work", (), lambda _: told.append(done), lost=lambda _: told.append("lost"), again=again)


def test_work_that_waits_for_a_lost_site_is_done_when_it_is_back_and_other_work_is_lost() -> None:
    crew, told = Mortal(1, ahead=1), list[Any]()
    dispatcher = dispatcher_of(crew, told)
    dispatcher.submit([work(0, told, again=True), work(0, told, again=False), work(0, told, again=True)])
    crew.ends = {0: Lost("killed"), 1: Lost("killed"), "back 1": None, 2: "done", 3: "done"}
    dispatcher.run_until(lambda: told.count(("done", 0)) == 2)
    assert told == [("left", 0), "lost", ("returned", 0), ("done", 0), ("done", 0)]
    assert crew.revived == [0], "what was sent to the process before tells nothing of the one after it"
    assert not dispatcher.gone


def test_work_for_anybody_waits_where_the_only_site_is_called_back() -> None:
    crew, told = Mortal(1), list[Any]()
    dispatcher = dispatcher_of(crew, told)
    dispatcher.submit([work(None, told, again=False)])
    crew.ends = {0: Lost("killed"), "back 1": None, 1: "done"}
    dispatcher.run_until(lambda: ("done", None) in told)
    assert told == [("left", 0), ("returned", 0), ("done", None)]


def test_a_site_that_fails_to_come_back_three_times_is_gone_for_good() -> None:
    crew, told = Mortal(2), list[Any]()
    dispatcher = dispatcher_of(crew, told)
    dispatcher.submit([work(0, told, again=True), work(1, told, again=True)])
    crew.ends = {0: Lost("killed"), 1: "done", **{f"back {number}": Lost("no state") for number in (1, 2, 3, 4)}}
    dispatcher.run_until(lambda: "lost" in told)
    assert crew.revived == [0, 0, 0]
    dispatcher.recall()
    assert crew.revived == [0, 0, 0]
    assert dispatcher.gone == {0: "no state"}


def test_room_is_looked_for_again_where_there_was_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "SOON", 0.01)
    crew, told = Mortal(1), list[Any]()
    dispatcher = dispatcher_of(crew, told, patience=30.0)
    tries: list[int] = []

    def revive(site: int) -> Any:
        tries.append(site)
        return NoRoom() if len(tries) < 4 else crew.revive(site)

    dispatcher.revive = revive
    dispatcher.submit([work(0, told, again=True), work(0, told, again=False)])
    crew.ends = {0: Lost("its node was lost"), "back 1": None, 1: "done"}
    dispatcher.run_until(lambda: ("done", 0) in told)
    assert told == [("left", 0), "lost", ("returned", 0), ("done", 0)]
    assert len(tries) == 4


def test_where_no_room_comes_its_work_is_lost_when_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "SOON", 0.01)
    crew, told = Mortal(2), list[Any]()
    dispatcher = dispatcher_of(crew, told, patience=0.05)
    dispatcher.revive = lambda site: NoRoom()
    dispatcher.submit([work(0, told, again=True)])
    crew.ends = {0: Lost("its node was lost")}
    begun = time.monotonic()
    dispatcher.run_until(lambda: "lost" in told)
    assert time.monotonic() - begun >= 0.05
    assert not dispatcher.expected
    dispatcher.recall()
    assert not dispatcher.expected, "a round looks for room once, and waits no more"


def test_room_is_looked_for_for_one_site_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "SOON", 0.01)
    crew, told = Mortal(2), list[Any]()
    dispatcher = dispatcher_of(crew, told, patience=30.0)
    room = False
    dispatcher.revive = lambda site: crew.revive(site) if room else NoRoom()
    dispatcher.submit([work(0, told, again=True), work(1, told, again=True)])
    crew.ends = {0: Lost("its node was lost"), 1: Lost("its node was lost")}
    dispatcher.run_until(lambda: set(dispatcher.seeking) == {0, 1})
    room = True
    dispatcher.run_until(lambda: bool(dispatcher.coming))
    for _ in range(3):
        time.sleep(0.02)
        dispatcher._search()
    assert len(crew.revived) == 1
    crew.ends |= {"back 1": None, "back 2": None, 2: "done", 3: "done"}
    dispatcher.run_until(lambda: {("done", 0), ("done", 1)} <= set(told))
    assert sorted(crew.revived) == [0, 1]


def test_what_is_sent_ahead_does_not_overtake_what_is_not() -> None:
    crew, told = Mortal(1, ahead=1), list[Any]()
    dispatcher = dispatcher_of(crew, told)
    first, second = work(0, told, again=False), replace(work(0, told, again=False), ahead=False)
    third = replace(work(0, told, again=False), arguments=("third",))
    dispatcher.submit([first, second, third])
    dispatcher._start_all()
    assert len(crew.started) == 1
    crew.ends = {0: "done", 1: "done", 2: "done"}
    dispatcher.run_until(lambda: not dispatcher.running and not dispatcher.queue)
    assert [arguments for _, arguments in crew.started] == [(), (), ("third",)]


def test_what_is_not_sent_ahead_is_given_up_without_having_begun() -> None:
    crew, told = Mortal(1, ahead=1), list[Any]()
    dispatcher = dispatcher_of(crew, told)
    first, second = work(0, told, again=False), replace(work(0, told, again=False), ahead=False)
    dispatcher.submit([first, second])
    dispatcher._start_all()
    dispatcher.give_up(second)
    crew.ends = {0: "done"}
    dispatcher.run_until(lambda: not dispatcher.running and not dispatcher.queue)
    assert told == [("done", 0)]
    assert len(crew.started) == 1


def test_a_site_that_does_not_come_in_time_is_called_again() -> None:
    crew, told = Mortal(1), list[Any]()
    dispatcher = dispatcher_of(crew, told, patience=0.02)
    dispatcher.submit([work(0, told, again=True)])
    crew.ends = {0: Lost("killed"), "back 2": None, 1: "done"}
    dispatcher.run_until(lambda: ("done", 0) in told)
    assert crew.revived == [0, 0]


def test_work_that_kills_its_site_each_time_is_given_up() -> None:
    crew, told = Mortal(1), list[Any]()
    dispatcher = dispatcher_of(crew, told)
    dispatcher.submit([work(0, told, again=True)])
    crew.ends = {**{number: Lost("out of memory") for number in range(9)}, "back 1": None, "back 2": None}
    dispatcher.run_until(lambda: "lost" in told)
    assert len(crew.started) == 3


def test_work_for_anybody_that_kills_every_site_is_given_up() -> None:
    crew, told = Mortal(2), list[Any]()
    dispatcher = dispatcher_of(crew, told)
    dispatcher.submit([work(None, told, again=False)])
    crew.ends = {number: Lost("out of memory") for number in range(50)}
    crew.ends |= {f"back {number}": None for number in range(1, 50)}
    dispatcher.run_until(lambda: "lost" in told)
    assert len(crew.started) == 3


def test_what_is_found_late_before_the_waiting_is_not_waited_for() -> None:
    """Ray waits a little less than it is told to, so that a deadline is met in the next step."""
    crew, told = Slow(1), list[Any]()
    dispatcher = Dispatcher(crew)
    dispatcher.submit([told_job(0, told, seconds=0.01)])
    crew.wait = lambda tickets, seconds=None: []  # type: ignore[method-assign]
    dispatcher.step()
    time.sleep(0.02)

    def look(tickets: Sequence[int], seconds: float | None = None) -> list[tuple[int, Any]]:
        assert seconds == 0.0, "nobody waits for this work any more"
        return []

    crew.wait = look  # type: ignore[method-assign]
    dispatcher.step()
    assert told == [("late", 0)]


def test_what_is_there_at_the_deadline_is_not_late() -> None:
    crew, told = Mortal(3), list[Any]()
    dispatcher = dispatcher_of(crew, told)
    dispatcher.submit(told_job(site, told, seconds=0.05) for site in range(3))
    crew.ends = {0: ("first",), 2: ("last",)}
    wait = crew.wait

    def look_late(tickets: Sequence[int], seconds: float | None = None) -> list[tuple[int, Any]]:
        time.sleep(0.1)
        return wait(tickets, seconds)

    crew.wait = look_late  # type: ignore[method-assign]
    dispatcher.run_until(lambda: len(told) == 3)
    assert told == [("done", "first"), ("done", "last"), ("late", 1)]


def test_what_this_process_ends_after_the_deadline_is_late_and_so_is_what_had_to_wait_for_it() -> None:
    told: list[Any] = []

    class Slept:
        def work(self, number: int) -> tuple[int]:
            time.sleep(0.1)
            return (number,)

    dispatcher = Dispatcher(LocalCrew(Slept()))  # type: ignore[arg-type]
    dispatcher.submit(told_job(0, told, seconds=0.05) for _ in range(2))
    dispatcher.run_until(lambda: len(told) == 3)
    assert told == [("late", 0), ("afterwards", 0), ("late", 0)]


def test_an_object_that_is_lost_costs_the_work_and_not_the_site() -> None:
    crew, told = Mortal(1), list[Any]()
    dispatcher = dispatcher_of(crew, told)
    dispatcher.submit([work(0, told, again=True), work(0, told, again=False)])
    crew.ends = {0: Lost("an object", site=False), 1: "done", 2: Lost("an object", site=False)}
    dispatcher.run_until(lambda: len(told) == 2)
    assert told == [("done", 0), "lost"], "what can be done again is"
    assert (crew.revived, dispatcher.gone) == ([], {})


def test_a_late_site_takes_no_other_sites_room() -> None:
    crew, told = Slow(2), list[Any]()
    dispatcher = Dispatcher(crew)
    dispatcher.submit([told_job(0, told)])
    dispatcher.run_until(lambda: told == [("late", 0)])
    crew.busy.clear()  # the rehearsal counts it
    crew.capacity = Capacity({"a": 1}, 1)
    dispatcher.submit([told_job(1, told, seconds=60)])
    crew.finished = [1]
    dispatcher.run_until(lambda: len(told) == 2)
    assert told[1] == ("done", 1)
