"""The aggregator's shards as Ray actors, which are made anew where they are lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lightning_fed.federation.aggregator import Shard, ShardsLostError
from lightning_fed.federation.remote import LostError, fetch, put
from lightning_fed.secagg.masks import Mask, Words
from lightning_fed.secagg.shard import slices

MOST_LOSSES = 3
"""Of shards in one round, after which the round is given up."""


class ActorShards:
    """One actor for each shard of the aggregator; slices reach it from hospitals by reference.

    A hospital's slices are sent when those of the one before are in, so that a shard never has more than one in
    hand and one on its way. The references are kept until the round is over: where a shard's process is lost, or
    does not answer in time, another one adds the same slices up again, and no round is lost that hospitals paid
    for.

    Args:
        count: of shards. nodes: to which they go in turn, where there is room. timeout: seconds for an answer.
        startup: seconds for a new one's first answer.
    """

    def __init__(
        self, count: int, nodes: Sequence[str], timeout: float | None = None, startup: float | None = None
    ) -> None:
        self.count, self.timeout, self.startup = count, timeout, startup
        self._nodes = [nodes[shard % len(nodes)] for shard in range(count)]
        self.actors: list[Any] = [self._actor(shard) for shard in range(count)]
        self._vector = (0, 1)
        self._sent: dict[int, Sequence[Any]] = {}
        self._told: list[int] = []
        self._adding: list[Any] = []
        self._broken = False
        try:
            self._await(self.actors)
        except LostError:
            self._broken = True  # the first round mends it

    def _actor(self, shard: int) -> Any:
        shell = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(Shard)
        strategy = NodeAffinitySchedulingStrategy(self._nodes[shard], soft=True)
        return shell.options(scheduling_strategy=strategy, enable_task_events=False).remote()

    def _await(self, actors: Sequence[Any]) -> None:
        """Until new ones answer."""
        fetch([actor.answer.remote() for actor in actors], self.startup, "an aggregator shard's")

    def begin(self, length: int, ring_bits: int) -> None:
        """Start a round's sum of vectors of a length; what is left of a round before it is dropped."""
        self._vector, self._sent, self._adding, self._broken = (length, ring_bits), {}, [], False
        self._whole(self._begin)

    def add(self, hospital: int, parts: Sequence[Any]) -> None:
        """Hand references on."""
        self._whole(self._settle)
        self._sent[hospital] = parts
        self._adding = self._add(parts)

    def added(self) -> list[int]:
        """Those whose slices are in all shards; a vector is left out of which a part was lost with its node."""
        self._whole(self._settle)
        self._told = list(self._sent)
        return self._told

    def open(self, masks: Sequence[Mask]) -> Words:
        """Take the masks away, all shards at the same time."""
        reference = put(masks)

        def opened() -> list[Words]:
            if list(self._sent) != self._told:
                raise ShardsLostError("a masked vector was lost when the sum was about to be opened")
            found: list[Words] = self._answers([actor.open.remote(reference) for actor in self.actors])
            return found

        total = np.concatenate(self._whole(opened))
        self._sent = {}
        return total

    def _whole(self, work: Callable[[], Any]) -> Any:
        """Do some work, if need be with new actors that have added up the same.

        Raises:
            ShardsLostError: they are lost again and again.
        """
        for _ in range(MOST_LOSSES):
            try:
                if self._broken:
                    self._mend()
                return work()
            except (LostError, GetTimeoutError):
                self._broken = True
        raise ShardsLostError(f"the aggregator's processes were lost {MOST_LOSSES} times in one round")

    def _mend(self) -> None:
        """Replace the actors that are gone, and add up anew; what cannot be read any more is left out."""
        gone = self._gone()
        for shard in gone:
            ray.kill(self.actors[shard])
            self.actors[shard] = self._actor(shard)
        self._await([self.actors[shard] for shard in gone])
        self._adding = []
        unread: int | None = -1
        while unread is not None:  # from the beginning, as some shards may have added what others cannot read
            self._sent.pop(unread, None)
            self._begin()
            unread = self._add_again()
        self._broken = False

    def _gone(self) -> list[int]:
        """The shards that do not answer, all asked at the same time."""
        asked = [actor.answer.remote() for actor in self.actors]
        ready, _ = ray.wait(asked, num_returns=len(asked), timeout=self.timeout)
        return [shard for shard, answer in enumerate(asked) if answer not in ready or not _is_there(answer)]

    def _add_again(self) -> int | None:
        """Send all that was sent once more; the hospital whose vector cannot be read any more, if there is one."""
        for hospital, parts in self._sent.items():
            try:
                self._answers(self._add(parts))
            except LostError as error:
                if not error.of_object:
                    raise
                return hospital
        return None

    def _begin(self) -> None:
        length, ring_bits = self._vector
        pairs = zip(self.actors, slices(length, self.count), strict=True)
        self._answers([actor.begin.remote(start, stop, ring_bits) for actor, (start, stop) in pairs])

    def _add(self, parts: Sequence[Any]) -> list[Any]:
        return [actor.add.remote(part) for actor, part in zip(self.actors, parts, strict=True)]

    def _settle(self) -> None:
        adding, self._adding = self._adding, []
        self._answers(adding)

    def _answers(self, references: list[Any]) -> Any:
        return fetch(references, self.timeout, "an aggregator shard's")


def _is_there(answer: Any) -> bool:
    try:
        fetch(answer)
    except LostError:
        return False
    return True
