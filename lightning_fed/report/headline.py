"""The head of the page: what ran, how good the model is, and what was guaranteed."""

from __future__ import annotations

from html import escape

from lightning_fed.report.markup import MEANINGS, duration, facts, number, paragraph, percent, tag, tile
from lightning_fed.report.privacy import SIMULATION, trust
from lightning_fed.report.run import Run
from lightning_fed.tracking.results import Result, SecAggSummary, TestScores
from lightning_fed.tracking.rounding import delta_text, epsilon_text

STATUSES = {
    "completed": "completed",
    "stopped_on_budget": "stopped: too few hospitals' privacy budgets pay for another round",
    "aborted": "aborted",
    None: "unfinished",
}


def headline(run: Run) -> str:
    """Title, status, scores, facts and the privacy sentence."""
    status = run.result.status if run.result else None
    parts = [
        f'<p class="status {status or "unfinished"}">{STATUSES[status]}</p>',
        paragraph(_what_ran(run), kind="lead"),
        _scores(run.result, run.result.test) if run.result and run.result.test else _scores_so_far(run),
        _privacy(run),
        facts(_facts(run)),
    ]
    return "\n".join(part for part in parts if part)


def _what_ran(run: Run) -> str:
    done, planned = len(run.lines), run.plan.federation.rounds
    if run.result and run.result.reason:
        return (
            f"{_count(run.hospitals, 'hospital')} trained one model in {run.result.rounds} of "
            f"{_count(planned, 'round')}; then the run could not go on: {run.result.reason}."
        )
    if run.result:
        return f"{_count(run.hospitals, 'hospital')} trained one model in {_count(run.result.rounds, 'round')}."
    return (
        f"{_count(run.hospitals, 'hospital')} train one model; {done} of {_count(planned, 'round')} "
        f"{'is' if done == 1 else 'are'} finished. Until the run is, this page knows the images only by their "
        f"configured name, and cannot say whether they are that data set's official files."
    )


def _scores(result: Result, test: TestScores) -> str:
    spread = result.hospital_accuracy
    tiles = [
        tile("test accuracy", percent(test.accuracy), "released"),
        tile("balanced accuracy, test", percent(test.balanced_accuracy), "released"),
        tile("AUROC, test", number(test.auroc), "released"),
    ]
    if spread and result.hospitals > 1:
        worst_to_best = f"{100 * spread.worst:.0f} to {percent(spread.best, 0)}"
        tiles.append(tile("accuracy, worst to best hospital", worst_to_best, "diagnostic"))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _scores_so_far(run: Run) -> str:
    if run.last is None:
        return paragraph("No model is measured yet, so there is nothing to draw.")
    newest, split = run.last.released, run.last.released.split
    tiles = [
        tile(f"accuracy, {split}, round {run.last.round}", percent(newest.accuracy), "released"),
        tile(f"balanced accuracy, {split}", percent(newest.balanced_accuracy), "released"),
        tile(f"AUROC, {split}", number(newest.auroc), "released"),
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _facts(run: Run) -> dict[str, str]:
    if run.result is None:
        return {"seed": str(run.plan.seed)}
    result = run.result
    told = {"seed": str(result.seed), "time": duration(result.seconds.total)}
    told["images of hospitals"] = f"{sum(result.data.images_by_hospital):,}"
    told["image size"] = f"{result.data.size} x {result.data.size}"
    if result.test is not None:
        told["test loss"] = f"{number(result.test.loss)} nats"
    if result.privacy.features is not None:
        told["features"] = result.privacy.features
    if result.teachers is not None:
        told["hospitals' own teachers"] = f"mean {result.teachers.text}"
    return told | _aggregation(result.secagg)


def _aggregation(secagg: SecAggSummary) -> dict[str, str]:
    told = {"aggregation": secagg.protocol}
    if secagg.degree is not None:
        told["degree, threshold"] = f"{secagg.degree}, {secagg.threshold}"
    told["upload, each hospital"] = f"{secagg.upload_bytes_per_hospital / 1e6:,.2f} MB a round"
    if secagg.dropped:
        stages = ", ".join(
            f"{count} {stage.replace('_', ' ')}" for stage, count in secagg.dropped_by_stage.items()
        )
        told["hospitals dropped out"] = f"{secagg.dropped} ({stages})"
    if secagg.failed_rounds:
        told["rounds without a new model"] = str(secagg.failed_rounds)
    if secagg.ring_bits is not None:
        told["ring"] = f"{secagg.ring_bits} bits"
        told["aggregation work"] = duration(secagg.seconds)
        if secagg.saturated is not None:
            told["coordinates clipped"] = f"{secagg.saturated:,}"
    if secagg.warning:
        told["warning"] = secagg.warning
    return told


def _privacy(run: Run) -> str:
    if run.result is None:
        return _privacy_so_far(run)
    privacy = run.result.privacy
    if privacy.epsilon is None:
        return _box("No privacy guarantee", f"{privacy.reason}.")
    until = "until it was aborted" if run.result.test is None else "over the whole run"
    told = f"{_guarantee(privacy.epsilon, privacy.delta, privacy.unit)}, {until}"
    simulated = f" {SIMULATION}." if privacy.reproducible else ""
    return _box(told, f"The worst hospital's ε; {trust(privacy)}.{simulated}", kept=True)


def _privacy_so_far(run: Run) -> str:
    planned = run.plan.privacy
    if planned.mechanism == "none":
        return _box("No privacy guarantee", "privacy.mechanism is none: no noise is added.")
    if not run.paid:
        return _box("Privacy not known yet", f"privacy.mechanism is {planned.mechanism}: see the finished run.")
    spent = run.paid[-1].released.epsilon
    assert spent is not None
    budget = "" if planned.epsilon is None else f" of a budget of {planned.epsilon:g}"
    told = f"The worst hospital's ε until round {run.paid[-1].round}{budget}, by mechanism {planned.mechanism}."
    return _box(f"{_guarantee(spent, planned.delta, None)} so far", told)


def _guarantee(epsilon: float, delta: float | None, unit: str | None) -> str:
    at = "" if delta is None else f", δ = {delta_text(delta)}"
    return f"ε = {epsilon_text(epsilon)}{at}" + (f" for each {unit}" if unit else "")


def _box(told: str, why: str, kept: bool = False) -> str:
    return f'<div class="privacy{" kept" * kept}">{paragraph(told, kind="told")}{paragraph(why)}</div>'


def _count(how_many: int, of_what: str) -> str:
    return f"{how_many:,} {of_what}{'s' * (how_many != 1)}"


def legend() -> str:
    """What the two tags mean."""
    told = " ".join(f"{tag(name)} {escape(meaning)}." for name, meaning in MEANINGS.items())
    return f'<p class="legend">{told}</p>'
