"""What must hold after a run, whatever struck it: the seven promises, checked from outside.

The run is repeated in this process without any fault, with the dropouts that were recorded: in reproducible mode
that must give the very same weights, so that the noise, the sums and the seeds of the run were what they would
have been. What left each hospital in clear is seen in the repetition alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_fed.experiment import Experiment, Loss
from lightning_fed.federation.assembly import open_crew
from lightning_fed.federation.crew import LocalCrew
from lightning_fed.federation.driver import Driver
from lightning_fed.federation.enrolment import enrol, save_identities
from lightning_fed.federation.outbox import AdditiveOutbox, Encode, MaskedOutbox
from lightning_fed.federation.protection import epsilon_after
from lightning_fed.models.vector import Vector, load_vector
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.joint import variance_of_one
from lightning_fed.secagg.conductor import STAGES
from lightning_fed.secagg.masks import Words
from lightning_fed.studies.chaos_life import PATIENCE, BrokenError
from lightning_fed.studies.chaos_search import Search
from lightning_fed.studies.prepare import prepare
from lightning_fed.tracking.files import read_rounds

SNIPPET = 8
"""Numbers of an update that nothing else would hold in this order."""
WHOLE_SNIPPET = 16
"""Likewise of its whole numbers, which may be small."""
SAMPLE = 0.05
"""Of a deviation, by which a measured one may differ: more than five deviations of it at 20,000 weights."""
COMMON = 8.0
"""Times one over the root of the number of weights: more correlation than independent noises show."""
TAGS = {"round", "cohort", "images", "steps", "seconds", "aggregation", "released", "diagnostic"}


@dataclass
class Repeated:
    """The run without faults.

    Args:
        weights: the last model (parameters,). charged: releases of each hospital, empty without a mechanism.
        epsilons: of each hospital. clear: every update (parameters,) that a hospital trained, by round and
            hospital. encoded: the same as numbers (integers,) that were masked next. fewest: hospitals that
            give a sum. doses: of the hospitals.
    """

    weights: dict[str, torch.Tensor]
    charged: list[int]
    epsilons: list[float]
    clear: dict[tuple[int, int], Vector]
    encoded: list[Words]
    fewest: int
    doses: tuple[Dose, ...]


def check_promises(experiment: Experiment, output: Path, places: Iterable[Path]) -> None:
    """Raise unless all of them hold.

    Args:
        experiment: that ran, in reproducible mode. output: its folder. places: files and folders of Ray, and what
            the run said, in which no masked update may be.

    Raises:
        BrokenError: one does not hold.
    """
    lines = read_rounds(output / "rounds.jsonl")
    summary = json.loads((output / "summary.json").read_text())
    rounds = experiment.federation.rounds
    if summary["status"] == "stopped_on_budget" and experiment.privacy.guarantees:
        rounds = len(lines)  # what was done again, and not to the bit, was charged again
    if [line["round"] for line in lines] != list(range(1, rounds + 1)):
        raise BrokenError(f"rounds.jsonl does not hold each of {rounds} rounds once")
    again = repeat(experiment, lines, output.with_name(f"{output.name}-repeated"))
    found = torch.load(output / "model.ckpt", weights_only=True)["state_dict"]
    if found.keys() != again.weights.keys() or not all(torch.equal(found[n], again.weights[n]) for n in found):
        raise BrokenError("promises 5 and 6: the same run without faults has other weights")
    if experiment.secagg.protocol != "plain":
        own = [path for path in output.iterdir() if path.name != "hospitals"]
        snippets = _snippets(again)
        if not snippets:
            raise BrokenError("promise 1: no update has a stretch that could be searched for")
        file = Search(snippets).first_of([*own, *places])
        if file is not None:
            raise BrokenError(f"promise 1: {file} holds an update in clear")
    if experiment.privacy.guarantees:
        _charged(experiment, output, lines, summary, again)
        _noised(experiment, again)
    for line in lines:
        if set(line) != TAGS:
            raise BrokenError(f"promise 7: round {line['round']} has {sorted(set(line) ^ TAGS)} under no tag")


def repeat(experiment: Experiment, lines: list[dict[str, Any]], output: Path) -> Repeated:
    """The run in this process, with the recorded dropouts and nothing else."""
    everybody = range(experiment.federation.hospitals)
    losses = []
    for line in lines:
        told = line["aggregation"]
        gone: dict[int, Any] = dict.fromkeys(told["spent"], STAGES[0])
        gone |= {one["hospital"]: one["stage"] for one in told["dropped"]}
        if told["failed"]:
            gone = dict.fromkeys(everybody, STAGES[0])
        losses += [Loss(line["round"], hospital, stage) for hospital, stage in sorted(gone.items())]
    for round in range(len(lines) + 1, experiment.federation.rounds + 1):
        losses += [Loss(round, hospital, "before_keys") for hospital in everybody]
    dropout = replace(experiment.faults.dropout, losses=losses)
    quiet = replace(
        experiment,
        ray=replace(experiment.ray, enabled=False),
        faults=replace(experiment.faults, dropout=dropout, max_failed_rounds=experiment.federation.rounds),
    )
    prepared = prepare(quiet)
    quiet, identities = enrol(quiet, prepared.roster)
    output.mkdir(exist_ok=True)
    save_identities(output, identities)
    crew = open_crew(quiet, prepared.data, prepared.roster, output)
    patient = replace(  # hospitals' noise depends on their settings, which are the run's
        quiet,
        federation=replace(quiet.federation, round_timeout=None),
        secagg=replace(quiet.secagg, stage_timeout=PATIENCE),
    )
    driver = Driver(patient, prepared.data, prepared.roster, prepared.model, crew)
    assert isinstance(crew, LocalCrew)
    clear: dict[tuple[int, int], Vector] = {}
    encoded: list[Words] = []
    for hospital, own in crew.site.hospitals.items():
        own.take_update = _seen(own.take_update, clear, own, hospital)  # type: ignore[method-assign]
        outbox = crew.site.outboxes[hospital]
        if isinstance(outbox, MaskedOutbox | AdditiveOutbox):
            outbox.encode = _noted(outbox.encode, encoded)
    for _ in driver.rounds():
        pass
    load_vector(prepared.classifier.network, driver.model.released)
    weights = {name: value.clone() for name, value in prepared.classifier.state_dict().items()}
    doses = prepared.roster.doses or ()
    charged = list(driver.spent()) if doses else []
    epsilons = [epsilon_after(dose, steps) for dose, steps in zip(doses, charged, strict=True)]
    return Repeated(weights, charged, epsilons, clear, encoded, driver.aggregation.fewest, doses)


def _seen(take: Any, clear: dict[tuple[int, int], Vector], own: Any, hospital: int) -> Any:
    def seen() -> Vector:
        update: Vector = take()
        clear[own.images.plan.round, hospital] = np.array(update)
        return update

    return seen


def _noted(encode: Encode, encoded: list[Words]) -> Encode:
    def noted(round: int, update: Vector, weight: int) -> tuple[Words, int]:
        vector, saturated = encode(round, update, weight)
        encoded.append(vector.copy())  # it is masked in place
        return vector, saturated

    return noted


def snippet_of(update: Vector) -> bytes:
    """The stretch by which an update is searched for."""
    return _middle(update).tobytes()


def _middle(update: Vector) -> Vector:
    return update[len(update) // 2 :][:SNIPPET]


def _snippets(again: Repeated) -> list[bytes]:
    """A stretch of each update: of its weights, of its whole numbers, and of these as they are packed."""
    stretches: list[NDArray[Any]] = [_middle(update) for update in again.clear.values()]
    for vector in again.encoded:
        whole = vector[len(vector) // 2 :][:WHOLE_SNIPPET]
        stretches += [whole, whole.astype("<u2")]
    telling = (stretch for stretch in stretches if np.all(stretch) and len(np.unique(stretch)) > SNIPPET / 2)
    return [stretch.tobytes() for stretch in telling]


def _charged(
    experiment: Experiment, output: Path, lines: list[dict[str, Any]], summary: dict[str, Any], again: Repeated
) -> None:
    """Promises 2 and 3: ledgers hold what was released, and the summary tells the whole run's epsilon by them."""
    told = summary["privacy"]
    able = sum(
        dose.affords(steps, dose.steps) for dose, steps in zip(again.doses, told["steps_by_hospital"], strict=True)
    )
    if summary["status"] == "stopped_on_budget" and able >= again.fewest:
        raise BrokenError(f"promise 3: it stopped on its budget, and {able} hospitals have not spent their own")
    for hospital in range(experiment.federation.hospitals):
        content = (output / "hospitals" / str(hospital) / "ledger.jsonl").read_text()
        charges = [charge for charge in map(_charge, content.splitlines()) if charge]
        charged = sum(charge["steps"] for charge in charges)
        counted = sum(hospital in line["aggregation"]["counted"] for line in lines)
        of_a_round = again.doses[hospital].steps
        if charged < max(counted * of_a_round, again.charged[hospital]):
            raise BrokenError(f"promise 2: hospital {hospital} charged {charged} and released more")
        if told["steps_by_hospital"][hospital] != charged:
            raise BrokenError(f"promise 2: the summary tells other steps than hospital {hospital}'s ledger")
        if told["epsilon_by_hospital"][hospital] != epsilon_after(again.doses[hospital], charged):
            raise BrokenError(f"promise 3: hospital {hospital}'s epsilon is not that of {charged} releases")
        if told["epsilon_by_hospital"][hospital] < again.epsilons[hospital]:
            raise BrokenError(f"promise 3: hospital {hospital}'s epsilon is below that of the run without faults")
    if told["epsilon"] != max(told["epsilon_by_hospital"]):
        raise BrokenError("promise 3: epsilon is not the worst hospital's")


def _charge(line: str) -> dict[str, Any] | None:
    """What a line of a ledger charges, read by other means than the ledger's own; a torn one charges nothing."""
    try:
        content = json.loads(line)
    except ValueError:
        return None
    found: dict[str, Any] | None = content.get("charge")
    return found


def _noised(experiment: Experiment, again: Repeated) -> None:
    """Promise 4: what hospitals let out has the deviation that was charged, and their noises nothing in common.

    Networks are large and batches small enough here that the signal adds less than a hundredth to a deviation.
    """
    begun = min(round for round, _ in again.clear)
    of_a_round = {hospital: update for (round, hospital), update in again.clear.items() if round == begun}
    noises = []
    for hospital, update in sorted(of_a_round.items()):
        wanted = _deviation(experiment, again.doses[hospital])
        noises.append(update.astype(np.float64))
        if abs(noises[-1].std() / wanted - 1) > SAMPLE:
            raise BrokenError(
                f"promise 4: hospital {hospital} let out a deviation of {noises[-1].std():g}, charged {wanted:g}"
            )
    if len(noises) > 1:
        common = np.abs(np.corrcoef(noises) - np.eye(len(noises))).max()
        if common > COMMON / math.sqrt(len(noises[0])):
            raise BrokenError(f"promise 4: the noises of two hospitals are correlated ({common:.3f})")


def _deviation(experiment: Experiment, dose: Dose) -> float:
    """Of one coordinate of a hospital's first release."""
    privacy = experiment.privacy
    if dose.joint is not None:
        return math.sqrt(variance_of_one(dose.joint, dose.noise_multiplier) * dose.steps)
    if dose.unit == "hospital":
        return dose.noise_multiplier * privacy.deviation_per_multiplier
    return dose.noise_multiplier * privacy.max_grad_norm * experiment.training.lr / dose.batch
