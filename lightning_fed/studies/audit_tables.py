"""What an audit found, as the terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lightning_fed.audit.bound import CONFIDENCE
from lightning_fed.studies.audit_epsilon import EpsilonAudit
from lightning_fed.tracking.audits import (
    WAYS,
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
from lightning_fed.tracking.console import say


def print_epsilon(audit: EpsilonAudit) -> None:
    """Its tests, the bound, and what they say of the claim."""
    table = Table(title=f"{audit.mechanism}: epsilon {audit.claimed:.2f} claimed at delta {audit.delta:g}")
    for heading in ("", "test", "found"):
        table.add_column(heading)
    for check in audit.checks:
        table.add_row("ok" if check.passed else "NO", check.name, check.told)
    if audit.bound is not None:
        fits = "ok" if audit.bound <= audit.claimed else "NO"
        told = f"epsilon > {audit.bound:.2f} with confidence {CONFIDENCE:g} ({audit.attacked})"
        table.add_row(fits, "lower bound", told)
    Console().print(table)
    say(f"against {audit.adversary}")
    say(f"{audit.verdict} ({audit.seconds:.0f} s)")


def print_inversion(audited: InversionAudited) -> None:
    """How alike what was found is to the images, by what left."""
    table = Table(title=f"{audited.network}, hospital {audited.hospital}: images found in one gradient step")
    for heading in ("what left", "batch", "images", "SSIM", "best", "PSNR", "SSIM to others", "p"):
        table.add_column(heading, justify="left" if heading == "what left" else "right")
    for one in audited.found:
        scores = (f"{one.ssim:.2f}", f"{one.best:.2f}", f"{one.psnr:.1f} dB", f"{one.other:.2f}")
        table.add_row(WAYS[one.way], str(one.batch), str(one.images), *scores, chance_text(one))
    Console().print(table)


def print_membership(audited: MembershipAudited) -> None:
    """How well members are told, of all hospitals and of those that stand out."""
    title = f"{audited.network}, {audited.mechanism}: members told in {audited.federations} federations"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("images of", "AUC", "found at 1 % false"):
        table.add_column(heading, justify="left" if heading == "images of" else "right")
    attack = ""
    for whose, one in told_hospitals(audited):
        if one.attack != attack:
            attack = one.attack
            table.add_row(f"[bold]{attack}[/], singly", f"[dim]{alone_text(one)}[/]")
        table.add_row(f"  {whose}", interval_text(one.auc), interval_text(one.found))
    Console().print(table)
    say(oddest_text(audited))
    if any(one.found is None for _, one in told_hospitals(audited)):
        say("a dash: of so few images 1 % is nobody")
    say(f"models of {rounds_text(audited)}; {audited.accuracy:.1%} accuracy on the validation split, in the mean")
    say(f"({audited.seconds:.0f} s)")


def print_leaks(run: Path, found: Sequence[LeakFound]) -> None:
    """Numbers that no guarantee covers, by file."""
    table = Table(title=f"{run.name}: numbers that no guarantee covers")
    for heading in ("file", "name", "numbers", "why"):
        table.add_column(heading)
    for leak in found:
        table.add_row(leak.file, leak.name, f"{leak.numbers:,}", leak.why)
    Console().print(table)
