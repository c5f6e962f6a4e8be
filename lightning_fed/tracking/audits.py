"""What an audit found, as it lies in `audit.json`."""

from __future__ import annotations

from dataclasses import dataclass, field

UNLIKELY = 0.05
"""What is as unlikely as that by chance alone counts as found."""
INVERSION, MEMBERSHIP = "inversion", "membership"
"""The pictures' names."""
NONE, CLIPPED, NOISED, MASKED, SUM = "none", "clipped", "noised", "masked", "sum"
WAYS = {
    NONE: "the gradient as it is",
    CLIPPED: "each image's gradient clipped",
    NOISED: "clipped, with the noise of the guarantee",
    MASKED: "the masked vector that leaves under SecAgg+",
    SUM: "the sum of all hospitals that SecAgg+ opens",
}
"""In which a gradient step may leave its hospital."""


@dataclass(frozen=True)
class AuditCheck:
    """One test: its name, whether what was claimed may be true, what was found, in a line, and its figures."""

    name: str
    passed: bool
    told: str
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EpsilonAudited:
    """Whether a claimed epsilon can be true.

    Args:
        mechanism: of the experiment. claimed: epsilon of the whole run at `delta`. adversary: who attacked.
        checks: of what was released. bound: epsilon is above it with `confidence`; None where none was sought.
        attacked: what the bound rests on, in words. verdict: in a line. refuted: whether the claim cannot be true.
        seconds: it took.
    """

    mechanism: str
    claimed: float
    delta: float
    adversary: str
    checks: tuple[AuditCheck, ...]
    bound: float | None
    attacked: str
    confidence: float
    verdict: str
    refuted: bool
    seconds: float


@dataclass(frozen=True)
class LeakFound:
    """Numbers in a run's folder that depend on private images and that no guarantee covers: how many, and why."""

    file: str
    name: str
    numbers: int
    why: str


@dataclass(frozen=True)
class InversionFound:
    """Images that were sought in gradient steps which left in one way.

    Args:
        way: one of `WAYS`. batch: images of a step. images: sought in all.
        ssim, best, psnr: of what was found with the images, in the mean, of the best, and in decibels.
        other: SSIM with other images of the same classes, in the mean. p_value: of `ssim` being no greater.
    """

    way: str
    batch: int
    images: int
    ssim: float
    best: float
    psnr: float
    other: float
    p_value: float


@dataclass(frozen=True)
class InversionAudited:
    """What an attacker finds in the first gradient step.

    Args:
        mechanism, network: of the experiment. hospital: whose step. restarts: of each search. found: by way and
            batch. seconds: it took.
    """

    mechanism: str
    network: str
    hospital: int
    restarts: int
    found: tuple[InversionFound, ...]
    seconds: float


@dataclass(frozen=True)
class Interval:
    """A value, and an interval that holds it with a confidence of 0.95 over other images of these hospitals."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MembershipFound:
    """How well members are told from others.

    Args:
        attack: its name. hospital: whose images, None for all. images: that may be members.
        auc: chance that a member is held a likelier one than another. least, greatest: of single federations.
        found: share of the members that are found where 1 % of the others are taken for members; None of so few
            images that 1 % is nobody.
    """

    attack: str
    hospital: int | None
    images: int
    auc: Interval
    least: float
    greatest: float
    found: Interval | None


@dataclass(frozen=True)
class MembershipAudited:
    """Which images were trained on, told from the final models of federations that trained on half of them.

    Args:
        mechanism, network: of the experiment. unit: what is protected; None without a guarantee. epsilon: of its
            worst hospital, of all rounds that were trained; None without a guarantee. federations: that were
            attacked, each with the others for shadows. rounds: of each. asked: rounds of the experiment, which a
            small budget shortens; None where nobody wrote it down. accuracy: of their models on the validation
            split, in the mean. smallest: hospital. oddest: hospital, by its shares of the classes.
        oddest_p: chance of a hospital so odd among as many whose images are drawn from all.
        found: by attack and hospital. seconds: it took.
    """

    mechanism: str
    network: str
    unit: str | None
    epsilon: float | None
    federations: int
    rounds: int
    asked: int | None
    accuracy: float
    smallest: int
    oddest: int
    oddest_p: float
    found: tuple[MembershipFound, ...]
    seconds: float


@dataclass(frozen=True)
class Audits:
    """All that `audit.json` holds."""

    epsilon: EpsilonAudited | None = None
    epsilon_by_images: EpsilonAudited | None = None
    leaks: tuple[LeakFound, ...] | None = None
    inversion: InversionAudited | None = None
    membership: MembershipAudited | None = None


def interval_text(found: Interval | None) -> str:
    """`0.512 (0.498 to 0.526)`; a dash where there is none."""
    return "-" if found is None else f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def alone_text(found: MembershipFound) -> str:
    """`0.498 to 0.521`, of single federations."""
    return f"{found.least:.3f} to {found.greatest:.3f}"


def chance_text(found: InversionFound) -> str:
    """The p-value; a dash where so few images could not give a small one."""
    return f"{found.p_value:.2g}" if 0.5**found.images < UNLIKELY else "-"


def rounds_text(audited: MembershipAudited) -> str:
    """`150 rounds`, and what is to be thought of fewer than the experiment's."""
    told = f"{audited.rounds} round{'s' * (audited.rounds != 1)}"
    if audited.asked in (audited.rounds, None):
        return told
    noise = "" if audited.epsilon is None else ", with noise made for so few"
    return f"{told}, where the experiment has {audited.asked} (its own model knows more than these{noise})"


def told_hospitals(audited: MembershipAudited) -> list[tuple[str, MembershipFound]]:
    """What was found of all hospitals, the smallest and the oddest (`oddest_text`), and whose it is in words."""
    named = {
        None: "all hospitals",
        audited.smallest: f"hospital {audited.smallest}, the smallest",
        audited.oddest: f"hospital {audited.oddest}, the oddest",
    }
    if audited.smallest == audited.oddest:
        named[audited.oddest] = f"hospital {audited.oddest}, smallest, oddest"
    return [(named[one.hospital], one) for one in audited.found if one.hospital in named]


def oddest_text(audited: MembershipAudited) -> str:
    """Which hospital's classes are the oddest, and what chance has of it."""
    if audited.oddest_p >= UNLIKELY:
        return f"Hospital {audited.oddest} is the oddest by its classes, no odder than one of as many is by chance"
    return (
        f"Hospital {audited.oddest} is the oddest by its classes; drawn from all, one of as many is so odd with a "
        f"probability of {audited.oddest_p:.2g} at most"
    )
