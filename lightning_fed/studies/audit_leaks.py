"""`lightning-fed audit leaks`: what lies in a run's folder beside what its guarantee covers."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from lightning_fed.audit.leaks import Leak, Rules, leaks_among, leaks_in
from lightning_fed.experiment import Experiment
from lightning_fed.federation.checkpoint import Checkpoints
from lightning_fed.federation.state import read_whole
from lightning_fed.report.load import read_run
from lightning_fed.tracking.files import RunFolder, read_rounds
from lightning_fed.tracking.wandb import told_names

SEEN = "taken from hospitals' private images (diagnostic)"
TIMING = "time, which depends on images"
OWN = "the hospital's own, which must not leave it"
SIZE = "a hospital's number of images, private where the hospital is what is protected"
CLASSES = "a hospital's images of each class"
BARE = "made of the images, and no mechanism covers it"
HELD_BACK = "scores of images that a hospital holds back"


def leaks_of(run: Path, experiment: Experiment) -> list[Leak]:
    """Every number in a run's folder that depends on private images and is not covered, by file and name."""
    folder = RunFolder(run)
    found = leaks_in(folder.rounds.name, read_rounds(folder.rounds), _named("[]", rules_of_rounds(experiment)))
    if folder.summary.exists():
        content = json.loads(folder.summary.read_text())
        found += leaks_in(folder.summary.name, content, rules_of_summary(experiment))
    checkpoints = Checkpoints(run)
    for round in checkpoints.rounds()[-1:]:
        content = read_whole(checkpoints.path(round))
        found += leaks_in("checkpoints/*.pt", content, rules_of_checkpoint(experiment))
    found += _wandb(run, experiment)
    if (run / "model.ckpt").exists() and not experiment.privacy.guarantees:
        found.append(Leak("model.ckpt", "state_dict", 1, BARE))
    found += _audits(run)
    own = sorted({path.name for path in (run / "hospitals").glob("*/*") if not path.name.startswith(".")})
    if own:
        shown = sorted({re.sub(r"\d+", "*", name) for name in own})
        found.append(Leak("hospitals/*", ", ".join(shown), len(own), OWN))
    return found


def _audits(run: Path) -> Iterator[Leak]:
    """Of what audits left there, which look at private images as no deployment could."""
    audit, audits = RunFolder(run).audit, asdict(read_run(run).audits)
    for name, numbers in (("inversion", "found"), ("membership", "found"), *AUDITED):
        if audits[name] is not None:
            yield Leak(audit.name, name, len(audits[name][numbers]), SEEN)
    pictures = sorted(run.glob("figures/inversion.*"))
    if pictures:
        yield Leak("figures/inversion.*, report.html", "hospitals' images", len(pictures), SEEN)
    shadows = sorted(run.glob("shadows/*.npz"))
    if shadows:
        yield Leak("shadows/*.npz", "confidences", len(shadows), SEEN)


def _named(prefix: str, rules: Rules) -> dict[str, str | None]:
    return {f"{prefix}.{name}": why for name, why in rules.items()}


def _covered(experiment: Experiment) -> str | None:
    return None if experiment.privacy.guarantees else BARE


def _size(experiment: Experiment) -> str | None:
    return SIZE if experiment.privacy.mechanism == "update" else None


def rules_of_rounds(experiment: Experiment) -> Rules:
    """For a line of `rounds.jsonl`."""
    public: dict[str, str | None] = dict.fromkeys(("round", "cohort", "steps", "aggregation"))
    covered = {"released": _covered(experiment), "released.epsilon": None, "released.epsilon_by_hospital": None}
    return {**public, **covered, "images": _size(experiment), "seconds": TIMING, "diagnostic": SEEN}


def rules_of_summary(experiment: Experiment) -> Rules:
    """For `summary.json`."""
    return {
        **dict.fromkeys(("rounds", "hospitals", "seed", "data.size", "privacy", "secagg", "versions")),
        "test": _covered(experiment),
        "hospital_accuracy": HELD_BACK,
        "teachers": SEEN,
        "data.images_by_hospital": _size(experiment),
        "data.classes_by_hospital": CLASSES,
        "secagg.saturated": SEEN,
        "secagg.saturated_share": SEEN,
        "secagg.seconds": TIMING,
        "seconds": TIMING,
    }


def rules_of_checkpoint(experiment: Experiment) -> Rules:
    """For the driver's checkpoint of a round."""
    reports = "trained.reports[]"
    public = ("trained", "last_rounds", "failed_in_a_row", "averaged", *(f"{reports}.{one}" for one in PLAIN))
    return {
        **dict.fromkeys(public),
        **dict.fromkeys(("weights", "average", "server"), _covered(experiment)),
        **dict.fromkeys((f"trained.{name}" for name in TIMES), TIMING),
        reports: SEEN,
        f"{reports}.images": _size(experiment),
        f"{reports}.seconds": TIMING,
        f"{reports}.protect_seconds": TIMING,
    }


AUDITED = (("epsilon", "checks"), ("epsilon_by_images", "checks"))
"""Parts of `audit.json`, whose tests say how many images went in, and how many gradients were clipped."""
PLAIN = ("hospital", "round", "steps", "spending.steps")
TIMES = ("train_seconds", "aggregate_seconds", "setup_seconds")


def rules_of_wandb(experiment: Experiment) -> Rules:
    """For what a W&B run was told."""
    return {
        **dict.fromkeys(("round", "epsilon", "status", "secagg", "_step")),
        **dict.fromkeys(("released", "test"), _covered(experiment)),
        "released/epsilon": None,
        "diagnostic": SEEN,
        **dict.fromkeys(("seconds", "_runtime", "_timestamp", "_wandb"), TIMING),
        **dict.fromkeys(("cpu", "disk", "gpu", "memory", "memory_percent", "network", "proc"), TIMING),
    }


def _wandb(run: Path, experiment: Experiment) -> Iterator[Leak]:
    """By the names in W&B's own files of what it was told, beside the experiment."""
    names: Counter[str] = Counter()
    for path in sorted((run / "wandb").rglob("*.wandb")):
        names.update(told_names(path))
    for section in experiment.as_dict():
        names.pop(section, None)
    yield from leaks_among("wandb/", names, rules_of_wandb(experiment))
