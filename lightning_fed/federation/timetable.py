"""Who is late in a round by simulated speeds (`faults.stragglers`): known before the round starts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lightning_fed.experiment import Experiment
from lightning_fed.federation.faults import simulated_seconds
from lightning_fed.federation.roster import Roster


@dataclass(frozen=True)
class Timetable:
    """A round on the simulated clock.

    Args:
        late: hospitals that come in after the round has closed, whatever they really take.
        seconds: until it closes.
    """

    late: frozenset[int]
    seconds: float


def timetable(experiment: Experiment, roster: Roster, round: int, training: Iterable[int]) -> Timetable | None:
    """The simulated round of those that train in it, None where nothing is simulated.

    The first `federation.enough` are in time, unless `federation.round_timeout` is over before.
    """
    arrivals = []
    for hospital in training:
        images = roster.members[hospital].images_in_a_round(experiment)
        seconds = simulated_seconds(experiment, hospital, round, images)
        if seconds is None:
            return None
        arrivals.append((seconds, hospital))
    arrivals.sort()
    limit = experiment.federation.round_timeout or math.inf
    in_time = [arrival for arrival in arrivals[: experiment.federation.enough] if arrival[0] <= limit]
    late = frozenset(hospital for _, hospital in arrivals[len(in_time) :])
    waits_in_vain = len(in_time) < min(len(arrivals), experiment.federation.enough)
    closes = limit if waits_in_vain else max((seconds for seconds, _ in in_time), default=0.0)
    return Timetable(late, closes)
