"""`lightning-fed chaos`: short runs in every mechanism and protocol under faults, and what must hold after."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import tempfile
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from lightning_fed.arguments import CommandParser, read_experiment
from lightning_fed.errors import FederationError, InputError
from lightning_fed.federation.nodes import Nodes
from lightning_fed.paths import user_path
from lightning_fed.studies.chaos_faults import FAULTS, HOSPITALS, TRIES, Fault
from lightning_fed.studies.chaos_life import Life
from lightning_fed.studies.chaos_promises import check_promises, snippet_of
from lightning_fed.studies.chaos_search import Search
from lightning_fed.tracking.console import say
from lightning_fed.tracking.files import read_rounds

MECHANISMS = ("none", "record", "update", "distributed")
PROTOCOLS = ("plain", "additive", "secagg_plus")
TRIALS = [
    (mechanism, protocol)
    for mechanism in MECHANISMS
    for protocol in PROTOCOLS
    if mechanism != "distributed" or protocol == "secagg_plus"
]
BLOCK = [*TRIALS, ("distributed", "secagg_plus")]
"""A mechanism that has one protocol would else have too few faults."""
ROUNDS = 40
MOST_FAULTS = 8
"""Of one run."""


@dataclass(frozen=True)
class Trial:
    """One run.

    Args:
        number: counted from 0; with the command's seed it settles all that is drawn. mechanism, protocol: its.
        faults: in their order.
    """

    number: int
    mechanism: str
    protocol: str
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        struck = ", ".join(fault.name for fault in self.faults)
        return f"{self.number}: {self.mechanism}, {self.protocol}: {struck}"


@dataclass
class Told:
    """What was struck and survived.

    Args:
        faults: how often each (mechanism, fault) struck. protocols: likewise each (mechanism, protocol).
        runs: that are complete, and keep all promises. lives: processes that they took. seconds: of it all.
        rounds, failed: of all runs, and how many of those gave no new model.
    """

    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    protocols: Counter[tuple[str, str]] = field(default_factory=Counter)
    runs: int = 0
    lives: int = 0
    seconds: float = 0.0
    rounds: int = 0
    failed: int = 0

    @property
    def missing(self) -> list[tuple[str, str]]:
        """Faults that did not strike a mechanism that has something of the kind."""
        pairs = ((mechanism, fault) for mechanism in MECHANISMS for fault in FAULTS if _fits(fault, mechanism))
        return [(mechanism, fault.name) for mechanism, fault in pairs if not self.faults[mechanism, fault.name]]

    def as_dict(self) -> dict[str, object]:
        """Plain values, for the last line."""
        total = sum(self.faults.values())
        return {
            "runs": self.runs,
            "faults": total,
            "faults_a_minute": 60 * total / self.seconds if self.seconds else 0.0,
            "lives": self.lives,
            "rounds": self.rounds,
            "failed_rounds": self.failed,
            "seconds": self.seconds,
            "by_fault": {
                fault.name: {mechanism: self.faults[mechanism, fault.name] for mechanism in MECHANISMS}
                for fault in FAULTS
            },
            "by_protocol": {
                protocol: {mechanism: self.protocols[mechanism, protocol] for mechanism in MECHANISMS}
                for protocol in PROTOCOLS
            },
            "missing": [list(pair) for pair in self.missing],
        }


def chaos_command(words: Sequence[str]) -> int:
    """Runs under random faults, until the time is over; each is checked against the seven promises.

    Raises:
        InputError: an option does not fit. FederationError: a promise does not hold, with what repeats the trial.
    """
    parser = CommandParser("chaos", chaos_command.__doc__, "The last line is one JSON object of what was struck.")
    parser.add_argument("--minutes", type=float, default=30.0, help="after which no new run begins (30)")
    parser.add_argument("--seed", type=int, default=0, help="of faults, moments and experiments (0)")
    parser.add_argument("--only", type=int, help="one trial alone, by the number that a failure names")
    parser.add_argument("--output", help="folder that keeps the runs; they are removed if left out")
    options = parser.parse_args(list(words))
    if options.minutes <= 0:
        raise InputError(f"chaos: --minutes is {options.minutes:g}: it must be above 0")
    if options.only is not None and options.only < 0:
        raise InputError(f"chaos: --only is {options.only}: trials are counted from 0")
    folder = Path(tempfile.mkdtemp(prefix="chaos-")) if options.output is None else user_path(options.output)
    folder = folder.resolve()
    if options.output is not None and folder.exists() and any(folder.iterdir()):
        raise InputError(f"chaos: {folder} is not empty; name another --output")
    folder.mkdir(parents=True, exist_ok=True)
    told = Told()
    try:
        with closing(Nodes(2)) as nodes:
            _try(options, nodes, folder, told)
    except BaseException:
        say(f"the runs are kept: {folder}")
        raise
    if options.output is None:
        shutil.rmtree(folder)
    _print(told)
    print(json.dumps(told.as_dict()))
    return 0


def _try(options: Namespace, nodes: Nodes, folder: Path, told: Told) -> None:
    check_search(nodes)
    begun, seed, only = time.monotonic(), options.seed, options.only
    wanted = itertools.islice(trials(seed), only, None if only is None else only + 1)
    for trial in wanted:
        if only is None and time.monotonic() - begun > 60 * options.minutes:
            break
        since = time.monotonic()
        try:
            struck, lives, ended = run_trial(trial, seed, nodes, folder / str(trial.number))
            if options.output is None:
                shutil.rmtree(folder / str(trial.number))
        except FederationError as error:
            raise FederationError(
                f"trial {trial}: {error}; repeat it by: lightning-fed chaos --seed {seed} --only {trial.number}"
            ) from error
        for fault in struck:
            told.faults[trial.mechanism, fault.name] += 1
        told.protocols[trial.mechanism, trial.protocol] += 1
        told.runs += 1
        told.lives += lives
        told.rounds += len(ended)
        told.failed += sum(ended)
        told.seconds = time.monotonic() - begun
        say(f"trial {trial}; {len(struck)} struck, {time.monotonic() - since:.0f} s, all promises hold")
    if 2 * told.failed > told.rounds:
        raise FederationError(f"{told.failed} of {told.rounds} rounds gave no new model: this shows little")


def trials(seed: int) -> Iterator[Trial]:
    """What is tried, by the seed alone.

    Each block has every mechanism with every protocol, shuffled. A trial's faults are those that struck its
    mechanism least.
    """
    planned: Counter[tuple[str, str]] = Counter()
    for number in itertools.count():
        block, place = divmod(number, len(BLOCK))
        mechanism, protocol = random.Random(f"order {seed} {block}").sample(BLOCK, len(BLOCK))[place]
        fitting = [fault for fault in FAULTS if _fits(fault, mechanism) and _fits(fault, protocol)]
        dice = random.Random(f"faults {seed} {number}")
        shuffled = dice.sample(fitting, len(fitting))
        chosen = sorted(shuffled, key=lambda fault, of=mechanism: planned[of, fault.name])[:MOST_FAULTS]  # type: ignore[misc]
        planned.update((mechanism, fault.name) for fault in chosen)
        yield Trial(number, mechanism, protocol, tuple(dice.sample(chosen, len(chosen))))


def _fits(fault: Fault, name: str) -> bool:
    """Whether a mechanism, or protocol, has something of a fault's kind."""
    return name not in fault.without


def words_of(trial: Trial, seed: int, output: Path, address: str) -> list[str]:
    """The run's command line."""
    dice = random.Random(f"experiment {seed} {trial.number}")
    masked, distributed = trial.protocol == "secagg_plus", trial.mechanism == "distributed"
    keys: dict[str, object] = {
        "data.images": 40 * HOSPITALS,
        "data.partition": "iid",
        "data.min_images": 8,
        "data.validation": 0.0,
        "model.width": 8,  # whose updates are too large for Ray to send them past its object stores
        "training.optimizer": "SGD",
        "training.lr": 0.1,
        "training.momentum": 0.0 if distributed else 0.5,
        "training.schedule": "constant",
        "training.warmup_rounds": 0.0,
        "training.batch_size": 32 if distributed else 8,
        # A repetition has no training of rounds that gave no sum, which only `plain` cannot have.
        "training.reset_optimizer_state": trial.protocol != "plain" and not distributed,
        "federation.hospitals": HOSPITALS,
        "federation.rounds": ROUNDS,
        "federation.local_steps": 1,
        "federation.weighting": "equal",
        "evaluation.every": dice.choice([1, 5]),
        "secagg.protocol": trial.protocol,
        "secagg.stage_timeout": 2.0,
        "privacy.mechanism": trial.mechanism,
        "privacy.reproducible": True,
        "faults.max_failed_rounds": ROUNDS,
        "ray.address": address,
        "ray.hospitals_per_actor": dice.choice([1, 2]),
        "tracking.wandb": "disabled",
        "seed": dice.randrange(2**31),
        "output": output,
    }
    if masked:
        keys |= {"secagg.threshold": 3, "secagg.server": "semi_honest", "secagg.shards": dice.choice([1, 2])}
        keys["secagg.rounds_per_setup"] = dice.choice([1, 5])
        if dice.random() < 0.5:
            keys["federation.round_timeout"] = 3.0
    if trial.mechanism != "none":
        keys |= {"privacy.epsilon": 8.0, "privacy.max_grad_norm": 0.1}
    if distributed:
        keys["privacy.distribution"] = dice.choice(["skellam", "discrete_gaussian"])
    return [f"--{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in keys.items()]


def run_trial(trial: Trial, seed: int, nodes: Nodes, folder: Path) -> tuple[list[Fault], int, list[bool]]:
    """One run under its faults: those that struck, how many processes it took, and which rounds gave no new model.

    Raises:
        BrokenError: a promise does not hold.
    """
    folder.mkdir(parents=True)
    words = words_of(trial, seed, folder / "run", nodes.address)
    experiment, begun = read_experiment(words), time.monotonic()
    life, dice, struck = Life(folder / "run", words, nodes), random.Random(f"moments {seed} {trial.number}"), []
    try:
        life.start()
        life.wait_for_a_word()
        for fault in trial.faults:
            moment = life.rounds + dice.choice([0, 0, 1, 2])  # often before the last one is mended
            life.wait_for(lambda moment=moment: life.rounds >= moment)  # type: ignore[misc]
            time.sleep(dice.uniform(0, 0.5))
            hit = _strike(fault, life, dice)
            struck += [fault] * hit
            say(f"  {time.monotonic() - begun:.0f} s: {fault.name}{'' if hit else ' (found nothing to strike)'}")
        life.finish()
        say(f"  {time.monotonic() - begun:.0f} s: complete")
        check_promises(experiment, life.output, [life.log, nodes.logs, *nodes.stores()])
    finally:
        life.end_now()
    failed = [line["aggregation"]["failed"] is not None for line in read_rounds(life.folder.rounds)]
    return struck, life.lives, failed


def check_search(nodes: Nodes) -> None:
    """Raise unless the search finds an object that lies in each of the object stores.

    Raises:
        FederationError: it does not see one, so that nothing could be said of updates in clear.
    """
    update = np.random.default_rng().standard_normal(2**16, dtype=np.float32)
    search, wanted = Search([snippet_of(update)]), 1 + len(nodes.others)
    with nodes.holding(update.tobytes()):
        seen = {store.parts[2] for store in nodes.stores() if search.first_of([store]) is not None}  # by process
    found = len(seen)
    if found < wanted:
        raise FederationError(
            f"an object that lies in {wanted} object stores was found in {found}; updates would not be either"
        )


def _strike(fault: Fault, life: Life, dice: random.Random) -> bool:
    """Strike a run, resumed where it has ended; False where it is complete, or has nothing to strike."""
    for _ in range(TRIES):  # it may end of the fault before while this one looks for something to strike
        if not life.lives_now:
            life.ended()
            if life.folder.complete:
                return False
            life.start()
            life.wait_for_a_word()
        if fault.strike(life, dice):
            return True
        if life.lives_now:
            break
    return False


def _print(told: Told) -> None:
    table = Table(title=f"{sum(told.faults.values())} faults in {told.runs} runs, all of which kept the promises")
    table.add_column("fault")
    for mechanism in MECHANISMS:
        table.add_column(mechanism, justify="right")
    for fault in FAULTS:
        struck = {mechanism: str(told.faults[mechanism, fault.name]) for mechanism in MECHANISMS}
        table.add_row(fault.name, *(struck[name] if _fits(fault, name) else "-" for name in MECHANISMS))
    Console().print(table)
    if told.missing:
        say("not struck: " + ", ".join(f"{mechanism}: {fault}" for mechanism, fault in told.missing))
