"""`lightning-fed audit`: what an attacker gets from what was released, and what lies beside it."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning_fed.arguments import CommandParser, read_experiment
from lightning_fed.audit.checks import Check, steps
from lightning_fed.checks import suggestion
from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.protection import epsilon_after, ledger_of
from lightning_fed.paths import user_path
from lightning_fed.report.figures import write_figures
from lightning_fed.report.load import read_run
from lightning_fed.report.page import write_report
from lightning_fed.report.reconstructions import draw_rows
from lightning_fed.studies.audit_epsilon import BUDGETS, audit_by_images, audit_epsilon
from lightning_fed.studies.audit_inversion import INVERSIONS, audit_inversion, rows_of
from lightning_fed.studies.audit_leaks import leaks_of
from lightning_fed.studies.audit_membership import MEMBERSHIPS, audit_membership, forget, prepare_membership
from lightning_fed.studies.audit_tables import print_epsilon, print_inversion, print_leaks, print_membership
from lightning_fed.studies.audit_view import charges_of, prepare_audit
from lightning_fed.studies.prepare import Prepared, resolve
from lightning_fed.tracking.audits import INVERSION, InversionAudited, LeakFound
from lightning_fed.tracking.console import say
from lightning_fed.tracking.files import RunFolder, read_rounds, write_text_whole

REFUTED = 4
"""Exit code where a claim does not hold."""
TOLERANCE = 1e-6
CANARIES = (
    "gradients of the attacker's own in what is released (the default), or images with wrong labels, of which the "
    "final model alone is seen"
)
USAGE = """usage: lightning-fed audit epsilon --config FILE [keys of the experiment] [--budget seconds|laptop|full]
       lightning-fed audit epsilon --run RUN [--budget seconds|laptop|full]
       lightning-fed audit inversion --config FILE [keys of the experiment] [--budget seconds|laptop|full]
       lightning-fed audit membership --config FILE [keys of the experiment] [--budget seconds|laptop|full]
       lightning-fed audit leaks --run RUN

epsilon    whether a claimed epsilon can be true; exit code 4 says that it cannot
inversion  images found in one gradient step of a hospital, by what of it leaves the hospital
membership which images were trained on, told from the final models of several federations
leaks      numbers in a run's folder that depend on private images and that no guarantee covers"""


def audit_command(words: Sequence[str]) -> int:
    """One of the audits.

    Raises:
        InputError: an option or the experiment does not fit.
    """
    kinds = {"epsilon": _epsilon, "inversion": _inversion, "membership": _membership, "leaks": _leaks}
    if words and words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if not words or words[0].startswith("-"):
        raise InputError(
            "audit: say which one: lightning-fed audit epsilon --config FILE, or audit leaks --run RUN"
        )
    if words[0] not in kinds:
        raise InputError(f"audit: no audit '{words[0]}': {suggestion(words[0], kinds)}")
    return kinds[words[0]](list(words[1:]))


def _epsilon(words: list[str]) -> int:
    """Tests of noise, steps and samples of what a real federation releases, and canaries."""
    told = f"Exit code {REFUTED} says that the claim does not hold. Without --run, keys are those of 'run'."
    parser = _parser("epsilon", _epsilon.__doc__, told, BUDGETS)
    parser.add_argument("--canaries", default="gradients", choices=("gradients", "images"), help=CANARIES)
    options, run, experiment, folder = _asked(parser, words)
    by_images = options.canaries == "images"
    prepared = prepare_audit(experiment, pretrained=by_images)
    audit = (audit_by_images if by_images else audit_epsilon)(prepared, BUDGETS[options.budget])
    if run is not None and not by_images:
        audit.checks.append(_kept_ledgers(run, prepared))
    print_epsilon(audit)
    _write(folder, run, {"epsilon_by_images" if by_images else "epsilon": asdict(audit.record())})
    return REFUTED if audit.refuted else 0


def _inversion(words: list[str]) -> int:
    """Search for images in one gradient step of a hospital, by what of it leaves the hospital."""
    told = "Without --run, keys are those of 'run'. The step is the first one, from weights as they are drawn."
    parser = _parser("inversion", _inversion.__doc__, told, INVERSIONS)
    parser.add_argument("--hospital", type=int, default=0, help="whose step (0)")
    options, run, experiment, folder = _asked(parser, words)
    prepared = prepare_audit(experiment)
    audited, found = audit_inversion(prepared, INVERSIONS[options.budget], options.hospital)
    print_inversion(audited)
    folder.mkdir(parents=True, exist_ok=True)
    write_figures({INVERSION: draw_rows(rows_of(found), _provenance(prepared, audited))}, folder / "figures")
    say(f"written: {folder / 'figures' / INVERSION}.png")
    _write(folder, run, {"inversion": asdict(audited)})
    return 0


def _membership(words: list[str]) -> int:
    """Train federations on halves of the images, and tell from each final model which half it was."""
    told = (
        "Without --run, keys are those of 'run'. Federations train side by side where there is room; each is kept "
        "in --output until all are trained, and the same command goes on."
    )
    tried = "seconds: 4 federations of 2 rounds; laptop: 4 of all rounds of the experiment; full: 16 (laptop)"
    parser = _parser("membership", _membership.__doc__, told, MEMBERSHIPS, tried)
    options, run, experiment, folder = _asked(parser, words)
    budget = MEMBERSHIPS[options.budget]
    audited, shadows = audit_membership(prepare_membership(experiment, budget), budget, experiment, folder)
    print_membership(audited)
    _write(folder, run, {"membership": asdict(audited)})
    forget(shadows)
    return 0


def _parser(
    name: str,
    told: str | None,
    more: str,
    budgets: Mapping[str, object],
    tried: str = "how much is tried (laptop)",
) -> CommandParser:
    parser = CommandParser(f"audit {name}", told, more)
    parser.add_argument("--run", help="folder of a finished run, whose experiment is audited as it is kept there")
    parser.add_argument("--budget", default="laptop", choices=sorted(budgets), help=tried)
    parser.add_argument("--output", help="folder for audit.json; that of the run, or a new one in runs/")
    return parser


def _asked(parser: CommandParser, words: list[str]) -> tuple[Namespace, Path | None, Experiment, Path]:
    """Options; the run, if one is named; the experiment; and the folder for what is found."""
    options, rest = parser.parse_known_args(words)
    run = None if options.run is None else _finished(options.run)
    if run is not None and rest:
        raise InputError(f"audit: {rest[0]}: a run is audited as it ran; leave it out, or name --config")
    experiment = resolve(read_experiment(rest) if run is None else _experiment_of(run))
    folder = _folder(run, options.output, experiment)
    RunFolder(folder).refuse_unwritable()  # which is told before an attack of minutes, as is what is damaged there
    RunFolder(folder).audits()
    if run is not None:
        read_run(run)  # which the page is made of
    return options, run, experiment, folder


def _provenance(prepared: Prepared, audited: InversionAudited) -> str:
    """Of the picture, which travels without its page."""
    return f"{prepared.data.title} · {audited.network} · {audited.mechanism} · seed {prepared.experiment.seed}"


def _leaks(words: list[str]) -> int:
    """List the numbers in a run's folder that depend on private images and that its guarantee does not cover."""
    parser = CommandParser("audit leaks", _leaks.__doc__)
    parser.add_argument("--run", required=True, help="folder of a finished run")
    run = _finished(parser.parse_args(words).run)
    found = [LeakFound(**asdict(leak)) for leak in leaks_of(run, _experiment_of(run))]
    print_leaks(run, found)
    _write(run, run, {"leaks": [asdict(leak) for leak in found]})
    return 0


def _finished(named: str) -> Path:
    run = user_path(named).resolve()
    if not RunFolder(run).complete:
        raise InputError(f"audit: {run} holds no finished run; name one, or go on with it by run --resume")
    return run


def _experiment_of(run: Path) -> Experiment:
    return read_experiment(["--config", str(RunFolder(run).experiment)])


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
    released, charged, wrong = {}, {}, []
    for hospital, dose in enumerate(prepared.roster.doses or ()):
        try:
            ledger_of(run, hospital, dose)  # its chain, its noise and its rate
        except InputError as error:
            return Check("ledgers of the run", False, str(error))
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


def _write(folder: Path, run: Path | None, found: dict[str, Any]) -> None:
    """`audit.json`, beside what other audits left there, and the run's page anew."""
    folder.mkdir(parents=True, exist_ok=True)
    path = RunFolder(folder).audit
    write_text_whole(path, json.dumps({**RunFolder(folder).audits(), **found}, indent=1) + "\n")
    say(f"written: {path}")
    if run == folder:
        say(f"written: {write_report(folder)}")
