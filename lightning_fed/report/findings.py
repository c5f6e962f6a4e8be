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
    alone_text,
    chance_text,
    interval_text,
    oddest_text,
    rounds_text,
    told_hospitals,
)
from lightning_fed.tracking.rounding import epsilon_text

Drawn = dict[str, str]  # a figure's name and its SVG

ON_THE_PAGE = "its figures are a simulator's, on the run's page"
LEAKS = "What lies in the run's folder beside what is covered"
SOUGHT = (
    "What an attacker who knows the labels finds of hospital {hospital}'s images (in the sum, of all hospitals') "
    "in one gradient step of {network} at weights as they are drawn, the best of {restarts} starts. An SSIM of 1 "
    "is the image itself. The sum is of gradients without clipping or noise. The attack is not made for noise; a "
    "better one may find more. The picture shows hospitals' images: it is for a simulator's eyes."
)
FOUND = ("what left", "batch", "images", "SSIM with them", "with others of their classes", "p of no difference")
TOLD_APART = (
    "Which images were trained on, told from the final models of {federations} federations of {rounds}, each "
    "trained on half of every hospital's images{guarantee} (mean accuracy on the validation split: {accuracy})."
    " An AUC of 0.5 is guessing. The attacker has each image with its label, the final model, and the other "
    "federations for shadows; it sees no round and asks once. A stronger one may do better: these are no upper "
    "bounds. Intervals of 95 % are over images, and not over other trainings; what single federations gave "
    "stands beside, and the share of members that are found where 1 % of the others are taken for members (a "
    "dash: of so few images 1 % is nobody). {oddest}."
)
GUARANTEE = ", at ε = {epsilon} of {unit}"
MEMBERS = ("attack", "images of", "AUC", "single federations", "members found at 1 % of others")


def audited(audit: EpsilonAudited) -> str:
    """What an audit found, in a sentence."""
    return f"Audited, against {audit.adversary}: {audit.verdict}"


def results_of(audit: EpsilonAudited, private: bool = True) -> list[tuple[str, str, str]]:
    """Rows of what was tested, whether it holds, and what was found.

    Args:
        private: with what the tests found, among it numbers of images that were drawn and clipped.
    """
    rows = [
        (check.name, "holds" if check.passed else "does not hold", check.told if private else ON_THE_PAGE)
        for check in audit.checks
    ]
    if audit.bound is not None:
        holds = "below the claim" if audit.bound <= audit.claimed else "above the claim"
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
    return [told, table(("audit", "", "found"), results_of(audit))]


def sought(audit: InversionAudited) -> str:
    """What was attacked, in words."""
    return SOUGHT.format(hospital=audit.hospital, network=audit.network, restarts=audit.restarts)


def found_images(audit: InversionAudited) -> list[tuple[str, ...]]:
    """Rows of what left a hospital, in batches of how many, and how alike what was found is to its images."""
    return [
        (
            *(WAYS[one.way], str(one.batch), str(one.images)),
            *(f"{one.ssim:.2f} ({one.psnr:.1f} dB)", f"{one.other:.2f}", chance_text(one)),
        )
        for one in audit.found
    ]


def inversion(audit: InversionAudited | None, drawn: Drawn) -> list[str]:
    """Of images that were sought in gradients."""
    if audit is None:
        return []
    told = paragraph(sought(audit), kind="legend")
    return [told, figure(drawn.get(INVERSION), wide=True), table(FOUND, found_images(audit))]


def found_members(audit: MembershipAudited) -> list[tuple[str, ...]]:
    """Rows of an attack, whose images, and how well members are told."""
    return [
        (one.attack, whose, interval_text(one.auc), alone_text(one), interval_text(one.found))
        for whose, one in told_hospitals(audit)
    ]


def told_apart(audit: MembershipAudited) -> str:
    """What was attacked, in words."""
    guarantee = ""
    if audit.epsilon is not None:
        guarantee = GUARANTEE.format(epsilon=epsilon_text(audit.epsilon), unit=f"each {audit.unit}")
    return TOLD_APART.format(
        federations=audit.federations,
        rounds=rounds_text(audit),
        guarantee=guarantee,
        accuracy=percent(audit.accuracy),
        oddest=oddest_text(audit),
    )


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
