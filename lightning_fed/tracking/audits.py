"""What an audit found, as it lies in `audit.json`."""

from __future__ import annotations

from dataclasses import dataclass


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
class Audits:
    """All that `audit.json` holds."""

    epsilon: EpsilonAudited | None = None
    leaks: tuple[LeakFound, ...] | None = None
