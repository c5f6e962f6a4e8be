"""`lightning-fed audit`: what an attacker gets from what was released."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lightning_fed.arguments import CommandParser, read_experiment
from lightning_fed.audit.bound import CONFIDENCE
from lightning_fed.audit.checks import Check, steps
from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.protection import epsilon_after
from lightning_fed.paths import user_path
from lightning_fed.report.page import write_report
from lightning_fed.studies.audit_epsilon import BUDGETS, EpsilonAudit, audit_epsilon
from lightning_fed.studies.audit_view import charges_of, prepare_audit
from lightning_fed.studies.single import Prepared, resolve
from lightning_fed.tracking.console import say
from lightning_fed.tracking.files import RunFolder, read_rounds, write_text_whole

REFUTED = 4
"""Exit code where a claim does not hold."""
TOLERANCE = 1e-6


def audit_command(words: Sequence[str]) -> int:
    """Whether a claimed epsilon can be true: tests of noise, steps and samples of real releases, and canaries.

    Raises:
        InputError: an option or the experiment does not fit, or it claims no epsilon.
    """
    kinds = ("epsilon",)
    kind = words[0] if words and not words[0].startswith("-") else None
    if kind is not None and kind not in kinds:
        raise InputError(f"audit: no audit '{kind}'; there is {', '.join(kinds)}")
    parser = CommandParser(
        "audit epsilon",
        audit_command.__doc__,
        "Name a finished run's folder, or an experiment by --config FILE and its keys as 'run' takes them. Exit "
        f"code {REFUTED} says that the claim does not hold.",
    )
    parser.add_argument("--run", help="folder of a finished run, whose ledgers are looked at too")
    parser.add_argument("--budget", default="laptop", choices=sorted(BUDGETS), help="how much is tried (laptop)")
    parser.add_argument("--output", help="folder for audit.json; that of the run, or a new one in runs/")
    options, rest = parser.parse_known_args(list(words[kind is not None :]))
    if kind is None:
        raise InputError(f"audit: say which one: lightning-fed audit {kinds[0]} --config FILE")
    run = None if options.run is None else user_path(options.run).resolve()
    prepared = prepare_audit(resolve(_experiment(run, rest)))
    folder = _folder(run, options.output, prepared.experiment)
    audit = audit_epsilon(prepared, BUDGETS[options.budget])
    if run is not None:
        audit.checks.append(_kept_ledgers(run, prepared))
    folder.mkdir(parents=True, exist_ok=True)
    path = RunFolder(folder).audit
    _write(path, audit)
    _print(audit)
    say(f"written: {path}")
    if run is not None and folder == run:
        say(f"written: {write_report(run)}")
    return REFUTED if audit.refuted else 0


def _experiment(run: Path | None, rest: Sequence[str]) -> Experiment:
    if run is None:
        return read_experiment(rest)
    if not (run / "summary.json").exists():
        raise InputError(f"audit: {run} holds no finished run; name one that has a summary.json")
    return read_experiment(["--config", str(RunFolder(run).experiment), *rest])


def _folder(run: Path | None, named: str | None, experiment: Experiment) -> Path:
    if named is not None:
        return user_path(named).resolve()
    if run is not None:
        return run
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path(f"runs/audit-{experiment.privacy.mechanism}-{stamp}").resolve()


def _kept_ledgers(run: Path, prepared: Prepared) -> Check:
    """Whether a run's ledgers charged each release of its rounds, and its summary tells the epsilon of them."""
    lines = read_rounds(RunFolder(run).rounds)
    told = json.loads(RunFolder(run).summary.read_text())["privacy"]
    doses = prepared.roster.doses or ()
    released, charged, wrong = {}, {}, []
    for hospital, dose in enumerate(doses):
        counted = sum(hospital in line["aggregation"]["counted"] for line in lines)
        released[hospital] = counted * dose.steps
        charged[hospital] = sum(charge.steps for charge in charges_of(run, hospital))
        if epsilon_after(dose, charged[hospital]) > told["epsilon_by_hospital"][hospital] * (1 + TOLERANCE):
            wrong.append(hospital)
    found = replace(steps(released, charged), name="ledgers of the run")
    if wrong:
        told_wrong = f"{found.told}; the summary's epsilon of hospital {wrong[0]} is below that of its charges"
        return replace(found, passed=False, told=told_wrong)
    return found


def _write(path: Path, audit: EpsilonAudit) -> None:
    """Beside what other audits left there."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    write_text_whole(path, json.dumps({**kept, "epsilon": asdict(audit.record())}, indent=1) + "\n")


def _print(audit: EpsilonAudit) -> None:
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
