"""What audits found, in words: for the page and for the privacy card."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_fed.report.markup import figure, paragraph, percent, table
from lightning_fed.report.run import Run
from lightning_fed.tracking.audits import (
    INVERSION,
    MEMBERSHIP,
    WAYS,
    EpsilonAudited,
    InversionAudited,
    LeakFound,
    MembershipAudited,
    interval_text,
    told_hospitals,
)

Drawn = dict[str, str]  # a figure's name and its SVG

LEAKS = "What lies in the run's folder beside what is covered"
SOUGHT = (
    "What an attacker who knows the labels finds of hospital {hospital}'s images in the first step of {network}, "
    "from what leaves the hospital; an SSIM of 1 is the image itself."
)
FOUND = ("what left", "batch", "SSIM with its images", "with others of their classes")
TOLD_APART = (
    "Which images were trained on, told from the final models of {federations} federations of {rounds} rounds, "
    "each trained on half of every hospital's images{noise} ({accuracy} of the validation split in the mean). An "
    "AUC of 0.5 is guessing; intervals of 95 %, over images."
)
OF_HALVES = ", with noise made for the halves"
MEMBERS = ("attack", "images of", "AUC", "members found where 1 % of others are taken for such")


def audited(audit: EpsilonAudited) -> str:
    """What an audit found, in a sentence."""
    return f"Audited, against {audit.adversary}: {audit.verdict}"


def tests_of(audit: EpsilonAudited) -> list[tuple[str, str, str]]:
    """Rows of what was tested, whether it holds, and what was found."""
    rows = [(check.name, "holds" if check.passed else "does not hold", check.told) for check in audit.checks]
    if audit.bound is not None:
        holds = "holds" if audit.bound <= audit.claimed else "does not hold"
        told = f"ε > {audit.bound:.2f} with confidence {audit.confidence:g}: {audit.attacked}"
        rows.append(("lower bound", holds, told))
    return rows


def bounds(run: Run, drawn: Drawn) -> list[str]:
    """Of the audits of epsilon."""
    found = run.audits
    return [*_audit(found.epsilon), *_audit(found.epsilon_by_images), figure(drawn.get("bounds"), wide=True)]


def _audit(audit: EpsilonAudited | None) -> list[str]:
    if audit is None:
        return []
    told = paragraph(f"{audited(audit)}.", kind="warning" if audit.refuted else "")
    return [told, table(("audit", "", "found"), tests_of(audit))]


def found_images(audit: InversionAudited) -> list[tuple[str, str, str, str]]:
    """Rows of what left a hospital, in batches of how many, and how alike what was found is to its images."""
    return [
        (WAYS[one.way], str(one.batch), f"{one.ssim:.2f} ({one.psnr:.1f} dB)", f"{one.other:.2f}")
        for one in audit.found
    ]


def inversion(audit: InversionAudited | None, drawn: Drawn) -> list[str]:
    """Of images that were sought in gradients."""
    if audit is None:
        return []
    told = paragraph(SOUGHT.format(hospital=audit.hospital, network=audit.network), kind="legend")
    return [told, figure(drawn.get(INVERSION), wide=True), table(FOUND, found_images(audit))]


def found_members(audit: MembershipAudited) -> list[tuple[str, str, str, str]]:
    """Rows of an attack, whose images, and how well members are told."""
    return [
        (one.attack, whose, interval_text(one.auc), interval_text(one.found))
        for whose, one in told_hospitals(audit)
    ]


def told_apart(audit: MembershipAudited) -> str:
    """What was attacked, in words."""
    noise = "" if audit.epsilon is None else OF_HALVES
    accuracy = percent(audit.accuracy)
    return TOLD_APART.format(federations=audit.federations, rounds=audit.rounds, noise=noise, accuracy=accuracy)


def membership(audit: MembershipAudited | None, drawn: Drawn) -> list[str]:
    """Of members that were told from others."""
    if audit is None:
        return []
    told, shown = paragraph(told_apart(audit), kind="legend"), figure(drawn.get(MEMBERSHIP), wide=True)
    return [told, shown, table(MEMBERS, found_members(audit))]


def leaks(found: Sequence[LeakFound] | None) -> list[str]:
    """Of numbers in the run's folder."""
    if found is None:
        return []
    rows = [(leak.file, leak.name, f"{leak.numbers:,}", leak.why) for leak in found]
    return [paragraph(f"{LEAKS}.", "diagnostic"), table(("file", "name", "numbers", "why"), rows)]
