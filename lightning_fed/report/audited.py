"""Figures of what audits found: bounds on epsilon beside the claim, and how well members are told from others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_fed.report.canvas import BLUE, INK, ORANGE, Picture, entitle, finish, sheet, some_of
from lightning_fed.report.run import Run
from lightning_fed.tracking.audits import (
    MEMBERSHIP,
    EpsilonAudited,
    MembershipAudited,
    interval_text,
    told_hospitals,
)

ALL = -1.5
"""Where all hospitals together stand on the axis of hospitals."""
ASIDE = 0.14
TONES = (BLUE, ORANGE)


def draw_audits(run: Run, provenance: str) -> list[Picture]:
    """The figures of the audits that were made."""
    found, pictures = run.audits, list[Picture]()
    bounds = [
        (told, audit)
        for told, audit in (("by releases", found.epsilon), ("by images of wrong labels", found.epsilon_by_images))
        if audit is not None and audit.bound is not None
    ]
    if bounds:
        pictures.append(draw_bounds(bounds, provenance))
    if found.membership is not None:
        pictures.append(draw_membership(found.membership, provenance))
    return pictures


def draw_bounds(bounds: Sequence[tuple[str, EpsilonAudited]], provenance: str) -> Picture:
    """Lower bounds on epsilon against the claim, which a true one does not cross."""
    figure = sheet(9.2, 1.3 + 0.35 * len(bounds))
    axes = figure.subplots()
    named, values = [name for name, _ in bounds], [audit.bound or 0.0 for _, audit in bounds]
    claims = [audit.claimed for _, audit in bounds]
    drawn = axes.barh(range(len(values)), values, color=BLUE, height=0.6)
    axes.bar_label(drawn, [f"{value:.2f}" for value in values], fontsize=9, padding=3, color=INK)
    places = np.arange(len(claims))
    axes.vlines(claims, places - 0.4, places + 0.4, color=ORANGE, linewidth=2.2, label="claimed")
    for place, claim in enumerate(claims):
        axes.text(claim, place, f" {claim:.2f}", va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(values)), named)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(*claims, *values))
    axes.set_xlabel("ε")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1.0), borderaxespad=0.2)
    entitle(axes, "ε is above that, with confidence 0.95", provenance)
    rows = zip(named, values, claims, strict=True)
    told = "; ".join(f"{value:.2f} {name}, claimed {claim:.2f}" for name, value, claim in rows)
    return finish("bounds", f"Lower bounds on epsilon: {told}", figure)


def draw_membership(audited: MembershipAudited, provenance: str) -> Picture:
    """AUC of each attack and hospital with its interval; 0.5 is what guessing reaches."""
    figure = sheet(9.2, 3.4)
    axes = figure.subplots()
    attacks = list(dict.fromkeys(one.attack for one in audited.found))
    hospitals = max((one.hospital or 0 for one in audited.found), default=0) + 1
    for place, (attack, tone) in enumerate(zip(attacks, TONES, strict=False)):
        own = [one for one in audited.found if one.attack == attack]
        aside = ASIDE * (2 * place - len(attacks) + 1)
        where = [(ALL if one.hospital is None else one.hospital) + aside for one in own]
        values = [one.auc.value for one in own]
        below = [max(one.auc.value - one.auc.low, 0) for one in own]
        above = [max(one.auc.high - one.auc.value, 0) for one in own]
        axes.errorbar(where, values, (below, above), fmt="o", ms=4.5, color=tone, elinewidth=1.4, label=attack)
    axes.axhline(0.5, color=INK, linestyle="--", linewidth=1.4, label="guessing", zorder=0.5)
    marked = dict(zip(some_of(hospitals), map(str, some_of(hospitals)), strict=True))
    marked |= {audited.smallest: f"{audited.smallest}\nsmallest", audited.oddest: f"{audited.oddest}\noddest"}
    if audited.smallest == audited.oddest:
        marked[audited.oddest] = f"{audited.oddest}\nsmallest,\noddest"
    axes.set_xticks([ALL, *marked], ["all", *marked.values()])
    axes.set_xlabel("hospital")
    axes.set_ylabel("AUC")
    axes.grid(axis="y")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=3, borderaxespad=0.2)
    title = "Members told from others"
    entitle(axes, title, provenance)
    alt = "; ".join(f"{one.attack}, {whose}: {interval_text(one.auc)}" for whose, one in told_hospitals(audited))
    return finish(MEMBERSHIP, f"{title}, AUC: {alt}", figure)
