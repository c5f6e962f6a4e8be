"""The privacy card in words: what is protected, from whom, how well, and what is not."""

from __future__ import annotations

from lightning_fed.report.findings import Drawn, bounds, inversion, leaks, membership
from lightning_fed.report.markup import UNDEFINED, figure, number, pair, paragraph, section, table
from lightning_fed.report.run import Run
from lightning_fed.tracking.results import PrivacySummary
from lightning_fed.tracking.rounding import delta_text, epsilon_text

PROTECTED = {
    "record": "Each image is protected: DP-SGD in its hospital, with Gaussian noise in every step",
    "update": "Each hospital is protected as a whole: Gaussian noise on the update that it sends in a round",
    "distributed": "Each image is protected: DP-SGD whose noise is shared out over the hospitals",
}
TRUSTED = {
    "record": "nobody needs to be trusted: all noise is added inside the hospital",
    "update": "all noise is added inside the hospital, and whoever is trusted with nothing counts by the ε of a "
    "hospital that is replaced by any other",
    "distributed": "it must be trusted that enough hospitals add their share; the server sees sums only",
}
NO_TRUST = "everybody who sees an update or the model must be trusted"
SIMULATION = "Simulation: the noise can be recomputed from the seed"
NOT_COVERED = "Not covered: {floats}timing, and what is tagged diagnostic."
FLOATS = "floating-point effects in the noise (Mironov 2012), "
ADJACENCY = {
    "image": "Blanked: the image is taken out and gives a zero gradient (add/remove adjacency); a picture "
    "exchanged for any other, a black one included, is a replaced one. The hospitals' numbers of images are "
    "public, and the unit is an image, not a patient.",
    "hospital": "Blanked: the hospital's update is zero; replaced: it is any other's. Its number of images is "
    "private too, so all weights are equal or configured; what is shown of images here only a simulator knows.",
}
STARTED = "The run started from {path}: what those weights tell of the images they were trained on is not covered."
SHARED = (
    "Every hospital adds {name} noise as whole numbers before it masks its sum. The noise of {counted} of them is "
    "counted on: the fewest that a sum is opened for, less those that may collude with the server."
)
BY_SIZE = (
    "A small hospital pays most: its noise is shared by fewer images, or it samples each of them more often. "
    "The noise on its mean gradient is the multiplier over its nominal batch, the sampling rate times its images."
)
TUNED = (
    "if these settings are the best of {runs} runs on the same images, each within this budget, their number "
    "drawn at random with that mean, and only the best was told (Papernot & Steinke 2022)"
)
CONTINUOUS = "a continuous Gaussian of that variance, PLD (what the accounting costs, no bound)"
BY_SUM = "All images are sampled at one rate and share one noise: a hospital's size does not change what it pays."
BY_ALL = "Every hospital adds the same noise to its update, whatever its size."


def privacy(run: Run, drawn: Drawn) -> str:
    """The section of runs with a mechanism; of the others, what an audit found: the page's head says the rest."""
    members = membership(run.audits.membership, drawn)
    if run.plan.privacy.mechanism == "none":
        found = [*members, *leaks(run.audits.leaks)]
        return section("Privacy", *found) if found else ""
    until = "until it was aborted" if run.untested else "whole run"
    card = [] if run.result is None else _card(run.result.privacy, until)
    spent = pair(figure(drawn.get("epsilon")), figure(drawn.get("accuracy_for_epsilon")))
    hospitals, looked = _hospitals(run, drawn), _looked_at(run, drawn)
    found = [*inversion(run.audits.inversion, drawn), *members, *leaks(run.audits.leaks)]
    return section("Privacy", *card, *bounds(run, drawn), spent, *hospitals, *looked, *found)


def trust(privacy: PrivacySummary) -> str:
    """Who must be trusted."""
    return NO_TRUST if privacy.epsilon is None else TRUSTED.get(privacy.mechanism, NO_TRUST)


def _card(privacy: PrivacySummary, until: str) -> list[str]:
    clipped = (
        "" if privacy.max_grad_norm is None else f", after clipping to a norm of C = {privacy.max_grad_norm:g}"
    )
    if privacy.epsilon is None:
        return [paragraph(f"{privacy.reason}. Hence {trust(privacy)}.", kind="warning")]
    parts = [paragraph(f"{PROTECTED.get(privacy.mechanism, privacy.mechanism)}{clipped}; {trust(privacy)}.")]
    if privacy.distribution is not None and privacy.counted_survivors_by_hospital:
        name, counted = privacy.distribution.replace("_", " "), privacy.counted_survivors_by_hospital[0]
        parts.append(paragraph(SHARED.format(name=name, counted=counted)))
    if privacy.reproducible:
        parts.append(paragraph(f"{SIMULATION}.", kind="warning"))
    if privacy.starts_from is not None:
        parts.append(paragraph(STARTED.format(path=privacy.starts_from), kind="warning"))
    if privacy.features is not None:
        parts.append(paragraph(f"Features: {privacy.features}."))
    head = (f"the worst hospital, {until}", "δ", "ε")
    not_covered = NOT_COVERED.format(floats=FLOATS if privacy.distribution is None else "")
    told = f"{ADJACENCY.get(privacy.unit or '', '')} {not_covered} Every ε is rounded up."
    return [*parts, table(head, epsilons(privacy)), paragraph(told, kind="legend")]


def epsilons(privacy: PrivacySummary) -> list[tuple[str, str, str]]:
    """Rows of what the guarantee is, and by other deltas, adjacencies and accountants."""
    alone = privacy.distribution is None
    by_images, blanked = privacy.unit == "image", privacy.adjacency != "replace_one"
    noun = "an image" if by_images else "a hospital"
    once, twice = (" (sensitivity C)", " (sensitivity 2 C)") if not by_images else ("", "")
    guarantee = f"{noun} is {'blanked' if blanked else 'replaced by any other'}"
    delta, strict = privacy.delta, privacy.strict_delta
    rows = [
        (f"guaranteed ({privacy.accountant}): {guarantee}{once if blanked else twice}", delta, privacy.epsilon),
        ("budget", delta, privacy.budget),
        (f"{noun} is replaced by any other{twice}", delta, privacy.epsilon_replace_one if blanked else None),
        (f"{noun} is blanked{once}", delta, None if blanked else privacy.epsilon_zero_out),
        ("at δ = 1/(10 n), n the images of all hospitals", strict, privacy.epsilon_strict_delta),
        ("second opinion, RDP", delta, privacy.epsilon_rdp),
        ("second opinion, PLD" if alone else CONTINUOUS, delta, privacy.epsilon_pld),
        (TUNED.format(runs=privacy.tuning_runs), delta, privacy.epsilon_tuned),
        ("with the noise of those that were in the sums (not paid back)", delta, privacy.epsilon_realised),
        ("if all hospitals were in every sum and none colluded", delta, privacy.epsilon_all_survivors),
    ]
    return [
        (name, UNDEFINED if at is None else delta_text(at), epsilon_text(value))
        for name, at, value in rows
        if value is not None
    ]


def _hospitals(run: Run, drawn: Drawn) -> list[str]:
    """What each hospital was charged for, and what small ones pay."""
    if run.result is None or not run.result.privacy.epsilon_by_hospital:
        return []
    privacy, images = run.result.privacy, run.result.data.images_by_hospital
    by_images = privacy.unit == "image"
    size = "images" if by_images else "images (diagnostic)"
    head = ("hospital", size, "sampling rate", "steps charged", "noise multiplier", "ε")
    columns = (
        map(str, range(run.hospitals)),
        map("{:,}".format, images),
        map(number, privacy.sample_rate_by_hospital or ()),
        map("{:,}".format, privacy.steps_by_hospital or ()),
        map(number, privacy.noise_multiplier_by_hospital or ()),
        map(epsilon_text, privacy.epsilon_by_hospital or ()),
    )
    told = paragraph(BY_SUM if privacy.distribution else BY_SIZE if by_images else BY_ALL, "released")
    return [told, figure(drawn.get("price"), wide=True), table(head, zip(*columns, strict=False))]


def _looked_at(run: Run, drawn: Drawn) -> list[str]:
    """What clipping and noise did, for a simulator's eyes."""
    if "clipping" not in drawn:
        return []
    told = (
        f"What clipping and noise did, seen in private images{': not covered by the guarantee' * bool(run.paid)}."
    )
    return [paragraph(told, "diagnostic"), figure(drawn["clipping"], wide=True)]
