"""Asking hospitals something between their trainings."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any

from lightning_fed.experiment import Experiment
from lightning_fed.federation.dispatch import Dispatcher, Job
from lightning_fed.federation.roster import Roster


class Reach:
    """Calls a method of some hospitals' sites and waits for the answers.

    Args:
        experiment: has the time limits. roster: where hospitals are. dispatcher: of their sites.
    """

    def __init__(self, experiment: Experiment, roster: Roster, dispatcher: Dispatcher) -> None:
        self.roster, self.dispatcher = roster, dispatcher
        message = experiment.secagg.stage_timeout
        self.limits = {
            "secagg": message,
            "add_shares": message,
            "affords": message,
            "spent": message,
            "restore": experiment.ray.startup_timeout,
            "score_teacher": experiment.real_timeout,
        }
        self.again = ("add_shares",)
        """What a site that is called back can still answer, as it depends on nothing that was lost."""

    def __call__(self, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> Mapping[int, Any]:
        """Results by hospital, without those that are gone or late.

        Each site is called once, with the arguments of its hospitals side by side, which are as many for each.
        """
        limit = self.limits[method]
        deadline = None if limit is None else time.monotonic() + limit
        by_site: dict[int, list[int]] = {}
        for hospital in arguments:
            by_site.setdefault(self.roster.site_of[hospital], []).append(hospital)
        results: dict[int, Any] = {}
        done: list[dict[int, Any]] = []
        missing: list[str] = []
        self.dispatcher.submit(
            Job(
                site,
                "each",
                (method, hospitals, *itertools.chain.from_iterable(arguments[one] for one in hospitals)),
                done.append,
                lost=missing.append,
                again=method in self.again,
                deadline=deadline,
                late=lambda: missing.append("late"),
            )
            for site, hospitals in by_site.items()
        )
        self.dispatcher.run_until(lambda: len(done) + len(missing) == len(by_site))
        for answers in done:
            results |= answers
        return results
