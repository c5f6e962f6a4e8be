"""Measuring a global model by work that is queued beside the hospitals' training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from lightning_fed.data.images import ImageData
from lightning_fed.errors import FederationError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.dispatch import Dispatcher, Job
from lightning_fed.federation.roster import Roster
from lightning_fed.federation.site import Shard
from lightning_fed.models.metrics import score
from lightning_fed.tracking.records import HospitalScore, Released

MOST_LIMITS = 4
"""Of a round's time limit, after which a measurement is given up."""


class Evaluation:
    """One global model on one public split, in shards, and on the hospitals' held-out images.

    Args:
        experiment, data, roster: the run's. split: `validation` or `test`. weights: as the crew put them.
        dispatcher: gets the work. hospitals: whether the hospitals score the model too.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: ImageData,
        roster: Roster,
        split: str,
        weights: Any,
        dispatcher: Dispatcher,
        hospitals: bool = True,
    ) -> None:
        self.split, self.weights, self.dispatcher = split, weights, dispatcher
        self.labels = data.split(split).labels
        self.batch_size = experiment.evaluation.batch_size
        self.site_of = roster.site_of if hospitals and experiment.data.validation > 0 else {}
        self.shards: list[Shard] = []
        self.scores: list[HospitalScore | None] = []
        self.limit = experiment.real_timeout
        self.again = not experiment.secagg.masked

    def jobs(self) -> list[Job]:
        """The work: a shard is one batch, so that the result does not depend on who does it."""
        end = None if self.limit is None else time.monotonic() + MOST_LIMITS * self.limit
        starts = range(0, len(self.labels), self.batch_size)
        return [self._shard_job(start, end) for start in starts] + [
            Job(
                site,
                "score_hospital",
                (hospital, self.weights),
                self.scores.append,
                lost=lambda _: self.scores.append(None),
                again=self.again,
                limit=self.limit,
                late=lambda: self.scores.append(None),
            )
            for hospital, site in self.site_of.items()
        ]

    def _shard_job(self, start: int, end: float | None) -> Job:
        """One batch; where a site does not answer in time, another one is asked, until `end`."""
        stop = min(start + self.batch_size, len(self.labels))
        done: Callable[[Any], None] = self.shards.append

        def late() -> None:
            if end is not None and time.monotonic() >= end:
                raise FederationError(
                    f"nobody measured the model in {MOST_LIMITS} times federation.round_timeout ({self.limit:g} s)"
                )
            self.dispatcher.submit([self._shard_job(start, end)])

        arguments = (self.split, start, stop, self.weights)
        return Job(None, "evaluate", arguments, done, limit=self.limit, deadline=end, late=late)

    @property
    def finished(self) -> bool:
        """Whether all of the work is done."""
        images = sum(len(shard.probabilities) for shard in self.shards)
        return images == len(self.labels) and len(self.scores) == len(self.site_of)

    def released(self) -> Released:
        """The scores on the public split."""
        shards = sorted(self.shards, key=lambda shard: shard.start)
        probabilities = torch.from_numpy(np.concatenate([shard.probabilities for shard in shards]))
        return Released(split=self.split, **asdict(score(probabilities, torch.from_numpy(self.labels))))

    def hospital_scores(self) -> tuple[HospitalScore, ...]:
        """The scores on held-out images, by hospital."""
        scores = (score for score in self.scores if score is not None)
        return tuple(sorted(scores, key=lambda score: score.hospital))

    @property
    def seconds(self) -> float:
        """Work done, summed over the sites that did it."""
        return sum(shard.seconds for shard in self.shards) + sum(s.seconds for s in self.hospital_scores())
