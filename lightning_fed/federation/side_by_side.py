"""Whole runs side by side, as many as the cluster holds: each is one Ray task that needs a core of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from lightning_fed.errors import FederationError, InputError
from lightning_fed.experiment import Ray
from lightning_fed.federation.cluster import Cluster
from lightning_fed.federation.memory import keep_freed_memory
from lightning_fed.interrupts import stop_if_asked

Outcome = InputError | FederationError | None


def side_by_side(
    settings: Ray, work: Callable[[Any], None], items: Sequence[Any]
) -> Iterator[tuple[int, Outcome]]:
    """Call `work` with each item; its place and how it ended, None for well, as they end.

    Args:
        settings: `cpus_per_hospital` and `gpus_per_hospital` are what one call takes; `enabled: false` makes the
            calls one after another in this process.

    Raises:
        InputError: the cluster cannot be reached or cannot hold one call.
    """
    if not settings.enabled:
        for place, item in enumerate(items):
            yield place, _outcome(work, item)
        return
    cluster = Cluster(settings)
    try:
        task = ray.remote(
            num_cpus=settings.cpus_per_hospital,
            num_gpus=settings.gpus_per_hospital,
            max_retries=0,  # a run goes on by its own checkpoints, when somebody asks for it
            max_calls=1,  # nothing of a run stays for the next one
            scheduling_strategy="SPREAD",
        )(_in_worker)
        waiting = {task.remote(work, item): place for place, item in enumerate(items)}
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1)
            for reference in ready:
                yield waiting.pop(reference), _result(reference)
            stop_if_asked()
    finally:
        cluster.close()


def _in_worker(work: Callable[[Any], None], item: Any) -> Outcome:
    keep_freed_memory()
    return _outcome(work, item)


def _outcome(work: Callable[[Any], None], item: Any) -> Outcome:
    try:
        work(item)
    except (InputError, FederationError) as error:
        return error
    return None


def _result(reference: Any) -> Outcome:
    try:
        outcome: Outcome = ray.get(reference)
    except RayTaskError:
        raise
    except RayError as error:
        return FederationError(f"its process was lost ({str(error).strip().splitlines()[-1].strip()})")
    return outcome
