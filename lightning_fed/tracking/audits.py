"""What an audit found, as it lies in `audit.json`."""

from __future__ import annotations

from dataclasses import dataclass

INVERSION = "inversion"
"""The picture's name."""
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
    """One test: its name, whether what was claimed may be true, and what was found, in a line."""

    name: str
    passed: bool
    told: str


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
class Audits:
    """All that `audit.json` holds."""

    epsilon: EpsilonAudited | None = None
    leaks: tuple[LeakFound, ...] | None = None
    inversion: InversionAudited | None = None
