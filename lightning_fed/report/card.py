"""A model's privacy card as Markdown, to lie beside its weights wherever they go."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_fed.errors import InputError
from lightning_fed.report.findings import (
    FOUND,
    LEAKS,
    MEMBERS,
    audited,
    found_images,
    found_members,
    results_of,
    sought,
    told_apart,
)
from lightning_fed.report.markup import number, percent
from lightning_fed.report.privacy import (
    ADJACENCY,
    FLOATS,
    NOT_COVERED,
    PROTECTED,
    SHARED,
    SIMULATION,
    STARTED,
    epsilons,
    trust,
)
from lightning_fed.report.run import Run
from lightning_fed.tracking.results import PrivacySummary, Result


def card_of(run: Run) -> str:
    """What was trained, what is guaranteed to whom, and what is not.

    Raises:
        InputError: the run is not finished.
    """
    result = run.result
    if result is None or result.test is None:
        raise InputError(
            "the run is not finished, so what its privacy costs is not known; 'lightning-fed run --resume' goes on"
        )
    parts = [
        "# Privacy card",
        "",
        f"{result.hospitals} hospitals, {result.rounds} rounds, {result.data.title}, seed {result.seed}; "
        f"aggregation {result.secagg.protocol}. Test accuracy {percent(result.test.accuracy, 2)}, balanced "
        f"{percent(result.test.balanced_accuracy, 2)}, AUROC {number(result.test.auroc, 4)}.",
        "",
        *_guarantee(result),
        *_audit(run),
    ]
    return "\n".join(parts) + "\n"


def _guarantee(result: Result) -> list[str]:
    privacy = result.privacy
    if privacy.epsilon is None:
        return ["## No privacy guarantee", "", f"{privacy.reason}. Hence {trust(privacy)}.", *_known(privacy)]
    clipped = (
        "" if privacy.max_grad_norm is None else f", after clipping to a norm of C = {privacy.max_grad_norm:g}"
    )
    lines = ["## What is guaranteed", "", f"{PROTECTED[privacy.mechanism]}{clipped}.", ""]
    lines += [f"- Unit: {privacy.unit}. Adversary: {trust(privacy)}.", f"- Accountant: {privacy.accountant}."]
    if privacy.distribution is not None and privacy.counted_survivors_by_hospital:
        name = privacy.distribution.replace("_", " ")
        lines.append(f"- {SHARED.format(name=name, counted=privacy.counted_survivors_by_hospital[0])}")
    if privacy.reproducible:
        lines.append(f"- **{SIMULATION}.**")
    lines += ["", "| the worst hospital, whole run | δ | ε |", "|---|---|---|"]
    lines += [f"| {name} | {delta} | {value} |" for name, delta, value in epsilons(privacy)]
    not_covered = NOT_COVERED.format(floats=FLOATS if privacy.distribution is None else "")
    return [*lines, "", "## What is not", "", ADJACENCY.get(privacy.unit or "", ""), not_covered, *_known(privacy)]


def _audit(run: Run) -> list[str]:
    found, lines = run.audits, list[str]()
    for title, audit in (("Audit", found.epsilon), ("Audit by images with wrong labels", found.epsilon_by_images)):
        if audit is not None:
            tests = results_of(audit, private=False)
            lines += _part(title, f"{audited(audit)}.", ("test", "", "found"), tests)
    if found.inversion is not None:
        rows = found_images(found.inversion)
        lines += _part("Images found in a gradient step", sought(found.inversion), FOUND, rows)
    if found.membership is not None:
        rows = found_members(found.membership)
        lines += _part("Members told from others", told_apart(found.membership), MEMBERS, rows)
    if found.leaks is not None:
        leaks = [(one.file, one.name, str(one.numbers), one.why) for one in found.leaks]
        lines += _part(LEAKS, "", ("file", "name", "numbers", "why"), leaks)
    return lines


def _part(title: str, told: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A section with a table."""
    lines = ["", f"## {title}", "", *([told, ""] if told else [])]
    return [*lines, *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))]


def _known(privacy: PrivacySummary) -> list[str]:
    """What the network knew before."""
    told = []
    if privacy.starts_from is not None:
        told.append(STARTED.format(path=privacy.starts_from))
    if privacy.features is not None:
        told.append(f"Features: {privacy.features}.")
    return told
