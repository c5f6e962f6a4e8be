"""The cells of arXiv 2412.00687's tables: what was printed, and the run that stands for each.

Its column DP+/SecAgg+ can be read in three ways, and each has its own runs: *as published* (clipped updates and
no noise, which is what its code did), *as described* (noise on clipped updates: of the size that its code names,
and of the size that (6, 1.9e-4) takes for the whole run where nobody is trusted), and *as it should be* (every
image protected, by our two recipes).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

HOSPITALS = (5, 10, 20)
EPSILONS = (0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 16.0)
NETWORKS = ("dpresnet", "resnet9", "resnet18")
IMAGES = 11_959
"""BloodMNIST's training images, from which a recipe's rounds are reckoned."""
CLIP, STATED_DEVIATION = 7.0, 0.6989
"""The paper's clipping norm, and the noise that its code logs: sqrt(2 ln(1.25 / 1.9e-4)) / 6 at sensitivity 1."""

PLAIN, MASKED = "DP-/SecAgg-", "DP-/SecAgg+"
PUBLISHED = "DP+/SecAgg+ as published (no noise)"
STATED = "DP+/SecAgg+ as described (noise as stated)"
RIGHT = "DP+/SecAgg+ as described (noise for (6, 1.9e-4))"
RECORD = "DP+/SecAgg+ as it should be (record)"
DISTRIBUTED = "DP+/SecAgg+ as it should be (distributed)"
GUARDED = "DP+/SecAgg+, DP-SGD of each image, (6, 1.9e-4)"
SLUGS = {
    PLAIN: "plain",
    MASKED: "secagg",
    PUBLISHED: "published",
    STATED: "stated-noise",
    RIGHT: "right-noise",
    RECORD: "record",
    DISTRIBUTED: "distributed",
}
"""Names of the columns in folders' names."""
COLUMNS = tuple(SLUGS)
SLUGS[GUARDED] = "dp-sgd"

PRIMIA, FEDMIC = "PriMIA, 10 hospitals", "FedMIC, 20 hospitals"
PRINTED: dict[tuple[int, str], float] = {
    (10, PLAIN): 0.9876,
    (10, MASKED): 0.9811,
    (10, PUBLISHED): 0.9778,
    (20, PLAIN): 0.9777,
    (20, MASKED): 0.9701,
    (20, PUBLISHED): 0.9689,
}
"""By hospitals and column; none was found for five, and no deviation."""
BESIDE_BASELINES = ((10, PLAIN), (10, MASKED), (10, PUBLISHED), (20, PLAIN))
"""The paper's own rows that its baselines are compared with."""
PRINTED_BASELINES = {
    (PRIMIA, PLAIN): 0.90,
    (PRIMIA, MASKED): 0.89,
    (PRIMIA, GUARDED): 0.85,
    (FEDMIC, PLAIN): 0.9633,
}
"""As the paper prints them; neither PriMIA's nor FedMIC's own text was found to hold them."""


@dataclass(frozen=True)
class Baselines:
    """The sizes of the two systems that the paper compares itself with.

    Args:
        primia_width, primia_batch, primia_lr: of PriMIA; its published rate of 1e-4 is for width 64 and 40 epochs.
        student_width, teacher_width: of FedMIC.
    """

    primia_width: int
    primia_batch: int
    primia_lr: float
    student_width: int
    teacher_width: int


@dataclass(frozen=True)
class Budget:
    """How much a grid may take.

    Args:
        width: of the networks of the paper's rows. rounds, epochs: of its federations, epochs in each round.
        passes: over all images that the private recipes take in the mean. seeds: runs of each cell.
        precision: of its federations. baselines: of PriMIA and FedMIC.
    """

    width: int
    rounds: int
    epochs: int
    passes: float
    seeds: int
    baselines: Baselines
    precision: str = "bf16-mixed"


SMALL, MIDDLE, FULL = (
    Baselines(8, 32, 1e-3, 8, 16),
    Baselines(16, 10, 1e-3, 16, 32),
    Baselines(64, 10, 1e-4, 64, 64),
)
BUDGETS = {
    "laptop": Budget(width=8, rounds=6, epochs=2, passes=12, seeds=1, baselines=SMALL),
    "workstation": Budget(width=16, rounds=25, epochs=2, passes=25.7, seeds=3, baselines=MIDDLE),
    "gpu": Budget(width=64, rounds=50, epochs=3, passes=25.7, seeds=3, baselines=FULL),
}


@dataclass(frozen=True)
class GridCell:
    """One number of a table.

    Args:
        questions: of the paper, such as RQ2. row, column: where it stands. words: of `lightning-fed run`.
        printed: what the paper prints there, None where it prints nothing.
    """

    questions: tuple[str, ...]
    row: str
    column: str
    words: tuple[str, ...]
    printed: float | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        text = f"{self.row} {SLUGS.get(self.column, self.column)}".lower()
        tame = "".join(letter if letter.isalnum() or letter in ".-" else " " for letter in text)
        return "-".join(tame.split())


def grid(budget: Budget) -> list[GridCell]:
    """All cells, in the order of the tables."""
    return [*_costs(budget), *_networks(budget), *_curve(budget), *_baselines(budget)]


def _costs(budget: Budget) -> Iterator[GridCell]:
    """RQ1 and RQ2: what secure aggregation and privacy cost, for each number of hospitals."""
    runs = {
        PLAIN: ("--secagg.protocol", "plain"),
        MASKED: (),
        PUBLISHED: update("--privacy.noise", "false"),
        STATED: update(*guarded(), "--privacy.noise_multiplier", f"{STATED_DEVIATION / CLIP:.6f}"),
        RIGHT: update(*guarded(), *budget_words(6.0), "--privacy.sensitivity", "replace_one", *wide_ring()),
    }
    for hospitals in HOSPITALS:
        row, number = f"{hospitals} hospitals", ("--federation.hospitals", str(hospitals))
        for column, words in runs.items():
            printed = PRINTED.get((hospitals, column))
            ring = () if column == PLAIN else complete(hospitals)
            beside = ("RQ5",) if (hospitals, column) in BESIDE_BASELINES else ()
            given = (*theirs(budget), *number, *words, *ring)
            yield GridCell(("RQ1", "RQ2", *beside), row, column, given, printed)
        for column, recipe in ((RECORD, record), (DISTRIBUTED, distributed)):
            further = ("RQ4", "RQ5") if hospitals == 10 else ()
            yield GridCell(("RQ1", "RQ2", *further), row, column, recipe(budget, hospitals, 6.0))


def _networks(budget: Budget) -> Iterator[GridCell]:
    """RQ3: the paper's network against two others, without and with privacy, all of one width."""
    for network in NETWORKS:
        words = (*theirs(budget), "--model.name", network, "--model.width", "8", "--secagg.protocol", "plain")
        yield GridCell(("RQ3",), network, "without privacy", words)
        private = (*record(budget, 10, 6.0), "--model.name", network, "--model.width", "8")
        yield GridCell(("RQ3",), network, "record, (6, 1.9e-4)", private)


def _curve(budget: Budget) -> Iterator[GridCell]:
    """RQ4: accuracy against epsilon; 6 stands in RQ2's table."""
    for epsilon in EPSILONS:
        if epsilon != 6.0:
            yield GridCell(("RQ4",), f"epsilon {epsilon:g}", RECORD, record(budget, 10, epsilon))
            yield GridCell(("RQ4",), f"epsilon {epsilon:g}", DISTRIBUTED, distributed(budget, 10, epsilon))


def _baselines(budget: Budget) -> Iterator[GridCell]:
    """RQ5: the two systems that the paper compares itself with, on the same images and hospitals."""
    sizes = budget.baselines
    rounds = rounds_for(budget, 3 * 10 * sizes.primia_batch)
    primia = (
        *("--config", "configs/primia.yaml", "--model.width", str(sizes.primia_width)),
        *("--training.batch_size", str(sizes.primia_batch), "--training.lr", f"{sizes.primia_lr:g}"),
        *("--federation.rounds", str(rounds), "--training.precision", budget.precision),
    )
    public = ("--privacy.mechanism", "none", "--privacy.epsilon", "null", "--data.validation", "0.2")
    variants = {PLAIN: (*public, "--secagg.protocol", "plain"), MASKED: public, GUARDED: ()}
    for column, words in variants.items():
        yield GridCell(("RQ5",), PRIMIA, column, (*primia, *words), PRINTED_BASELINES[PRIMIA, column])
    fedmic = (
        *("--config", "configs/fedmic.yaml", "--model.width", str(sizes.student_width)),
        *("--federation.distillation.teacher_width", str(sizes.teacher_width)),
        *("--federation.rounds", str(budget.rounds), "--federation.local_epochs", str(budget.epochs)),
        *("--training.precision", budget.precision),
    )
    yield GridCell(("RQ5",), FEDMIC, PLAIN, fedmic, PRINTED_BASELINES[FEDMIC, PLAIN])


def theirs(budget: Budget) -> tuple[str, ...]:
    """The paper's settings at a budget's size."""
    return (
        *("--config", "configs/paper.yaml", "--model.width", str(budget.width)),
        *("--federation.rounds", str(budget.rounds), "--federation.local_epochs", str(budget.epochs)),
        *("--training.precision", budget.precision),
    )


def complete(hospitals: int) -> tuple[str, ...]:
    """The rule's own graph in place of the paper's, which holds for ten hospitals without a dropout alone."""
    return () if hospitals == 10 else ("--secagg.degree", "null", "--secagg.threshold", "null")


def update(*words: str) -> tuple[str, ...]:
    """The paper's local DP."""
    return ("--privacy.mechanism", "update", "--privacy.max_grad_norm", f"{CLIP:g}", *words)


def guarded() -> tuple[str, ...]:
    """What a guarantee for hospitals takes: nobody holds images back, and counts are private."""
    return ("--data.validation", "0", "--federation.weighting", "equal", "--privacy.delta", "0.00019")


def budget_words(epsilon: float) -> tuple[str, ...]:
    """The budget of the whole run."""
    return ("--privacy.epsilon", f"{epsilon:g}", "--privacy.delta", "0.00019")


def wide_ring() -> tuple[str, ...]:
    """A range that holds noise of a deviation of hundreds."""
    return ("--secagg.clip", "4000", "--secagg.bits", "25")


def record(budget: Budget, hospitals: int, epsilon: float) -> tuple[str, ...]:
    """Our recipe with every hospital's own noise: 2,560 images a round of all together."""
    batch = 2560 // hospitals
    return (
        *("--config", "configs/bloodmnist_record.yaml", "--federation.hospitals", str(hospitals)),
        *("--training.batch_size", str(batch), *length(rounds_for(budget, batch * hospitals), 5 / 150)),
        *budget_words(epsilon),
    )


def distributed(budget: Budget, hospitals: int, epsilon: float) -> tuple[str, ...]:
    """Our recipe with shared noise, counted for all but a tenth of the hospitals, and one that colludes."""
    return (
        *("--config", "configs/bloodmnist_private.yaml", "--federation.hospitals", str(hospitals)),
        *("--secagg.min_survivors", str(hospitals - max(1, hospitals // 10))),
        *("--secagg.degree", str(hospitals - 1), "--secagg.threshold", str(2 * hospitals // 3 + 1)),
        *("--privacy.colluding_hospitals", str(max(1, hospitals // 10))),
        *length(rounds_for(budget, 1024), 80 / 300),
        *budget_words(epsilon),
    )


def rounds_for(budget: Budget, batch: int) -> int:
    """Rounds of a mean batch that make the budget's passes."""
    return max(1, round(budget.passes * IMAGES / batch))


def length(rounds: int, warm: float) -> tuple[str, ...]:
    """So many rounds, with the recipe's share of them for the warm-up."""
    return ("--federation.rounds", str(rounds), "--training.warmup_rounds", f"{warm * rounds:.1f}")
