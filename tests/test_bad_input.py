"""Each line of the README's table of bad input, done for real: what is said, the exit code, nothing is lost."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_fed.cli import main
from lightning_fed.tracking.files import RunFolder
from lightning_fed.tracking.records import RoundRecord
from ray_jobs.job import run_job
from tests.data.archives import arrays, save

README = Path(__file__).parents[1] / "README.md"
LINE = re.compile(r"^\| (.+?) \| `(.+)`(?: \(.+\))? \| (\d+) \|$")
PRIVATE = ["--secagg.protocol=secagg_plus", "--privacy.mechanism=record", "--privacy.epsilon=5"]
SMALL = {
    "data.images": 96,
    "data.partition": "iid",
    "data.min_images": 4,
    "data.validation": 0,
    "model.width": 2,
    "federation.hospitals": 3,
    "federation.rounds": 2,
    "federation.local_epochs": 1,
    "federation.weighting": "equal",
    "ray.enabled": "false",
    "tracking.wandb": "disabled",
}
SWEEP = "method: grid\ncommand: [lightning-fed, run, '${args}']\nparameters:\n  seed: {values: [1, 2]}\n"


def run(*words: str, **changes: object) -> list[str]:
    """`lightning-fed run` of the small experiment; the last word of a key counts."""
    keys = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    return ["run", *(f"--{name}={value}" for name, value in keys.items()), "--output=new", *words]


@dataclass(frozen=True)
class Line:
    """One of the table: what is given, the words that are said in their order, and the exit code."""

    given: str
    said: tuple[str, ...]
    code: int


def table() -> Iterator[Line]:
    section = README.read_text().split("\n## When the input is bad\n")[1].split("\n## ")[0]
    head, rule, *lines = [line for line in section.splitlines() if line.startswith("|")]
    assert head == "| what is given | what is said | exit code |"
    assert set(rule) <= {"|", "-"}
    for line in lines:
        cells = LINE.match(line)
        assert cells, f"not a line of three cells: {line}"
        said = tuple(piece.strip() for piece in cells[2].split("..."))
        yield Line(cells[1], tuple(piece for piece in said if piece), int(cells[3]))


Words = list[str]
CASES: dict[str, Callable[[Path], Words]] = {}
JOBS = ("a relative path in a Ray job",)


def given(what: str) -> Callable[[Callable[[Path], Words]], Callable[[Path], Words]]:
    """The case of a line: it damages something in a folder that holds `run` and `cut`, and gives the words."""

    def note(case: Callable[[Path], Words]) -> Callable[[Path], Words]:
        assert what not in CASES
        CASES[what] = case
        return case

    return note


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def experiment_of(text: str) -> Callable[[Path], Words]:
    def case(folder: Path) -> Words:
        (folder / "bad.yaml").write_text(text)
        return ["run", "--config", "bad.yaml"]

    return case


def sweep_of(text: str) -> Callable[[Path], Words]:
    def case(folder: Path) -> Words:
        (folder / "bad.yaml").write_text(text)
        return ["sweep", "bad.yaml", "--output=new"]

    return case


def damaged_run(damage: Callable[[Path], object]) -> Callable[[Path], Words]:
    """Of a run that was cut short, before it goes on."""

    def case(folder: Path) -> Words:
        damage(folder / "cut")
        return ["run", "--resume", "cut"]

    return case


def images_of(**changes: np.ndarray | None) -> Callable[[Path], Words]:
    def case(folder: Path) -> Words:
        content = {name: array for name, array in (arrays() | changes).items() if array is not None}
        save(folder / "images.npz", content)
        return own_images("images.npz")

    return case


def own_images(root: str) -> Words:
    return run(f"--data.root={root}", data__name="path", data__size=8)


given("a key that there is not, in an experiment's file")(experiment_of("data: {nmae: x}"))
given("a word where a number belongs")(experiment_of("seed: abc"))
given("a value out of range")(experiment_of("data: {alpha: -1}"))
given("one key twice in a file")(experiment_of("seed: 1\nseed: 2\n"))
given("a file with the marks of a merge conflict")(
    experiment_of("<<<<<<< HEAD\nseed: 1\n=======\nseed: 2\n>>>>>>> other\n")
)
given("a file that is not there")(lambda folder: ["run", "--config", "nowhere.yaml"])
given("two keys that exclude each other")(
    lambda folder: run("--secagg.protocol=secagg_plus", "--federation.aggregator=median")
)
given("a budget too small for one round")(
    lambda folder: run("--privacy.mechanism=record", "--privacy.epsilon=2", "--privacy.noise_multiplier=0.5")
)
given("an output folder that holds a run")(lambda folder: run("--output=run"))
given("an output folder below a file")(lambda folder: run("--output=run/model.ckpt/new"))
given("`ray.address` where nobody answers")(lambda folder: run("--ray.address=127.0.0.1:9", ray__enabled="true"))
given("a relative path in a Ray job")(lambda folder: ["--output", "runs/x"])


@given("an npz that is cut off")
def _(folder: Path) -> Words:
    content = save(folder / "images.npz", arrays()).read_bytes()
    (folder / "images.npz").write_bytes(content[: len(content) // 2])
    return own_images("images.npz")


given("an npz without one of the arrays")(images_of(val_labels=None))
given("an npz of images that are not square")(images_of(train_images=arrays()["train_images"][:, :, :4]))
given("an npz of Python objects, which could run code")(images_of(train_images=np.array([{}], dtype=object)))


@given("class folders without pictures")
def _(folder: Path) -> Words:
    for name in "ab":
        (folder / "pictures" / name).mkdir(parents=True)
    return own_images("pictures")


@given("a damaged picture among whole ones")
def _(folder: Path) -> Words:
    for name in "ab":
        (folder / "pictures" / name).mkdir(parents=True)
        for shade in range(10):
            path = folder / "pictures" / name / f"{shade}.png"
            Image.fromarray(np.full((9, 9, 3), shade, np.uint8)).save(path)
    whole = (folder / "pictures/b/3.png").read_bytes()
    (folder / "pictures/b/3.png").write_bytes(whole[:40])
    return own_images("pictures")


given("a finished run to resume")(lambda folder: ["run", "--resume", "run"])
given("a resumed run whose newest checkpoint is damaged")(
    damaged_run(lambda run: flip(run / "checkpoints/round-00002.pt"))
)
given("one whose checkpoints are all damaged")(
    damaged_run(lambda run: [flip(path) for path in (run / "checkpoints").iterdir()])
)
given("one whose checkpoints are missing")(damaged_run(lambda run: shutil.rmtree(run / "checkpoints")))


@given("one whose `experiment.yaml` is another's")
@damaged_run
def _(run: Path) -> None:
    text = (run / "experiment.yaml").read_text()
    assert text.count("seed: 42\noutput") == 1
    (run / "experiment.yaml").write_text(text.replace("seed: 42\noutput", "seed: 43\noutput"))


@given("one with a damaged line in `rounds.jsonl`")
@damaged_run
def _(run: Path) -> None:
    first, *others = (run / "rounds.jsonl").read_text().splitlines(keepends=True)
    assert others
    (run / "rounds.jsonl").write_text("".join([first[5:], *others]))


@given("one with a round twice in `rounds.jsonl`")
@damaged_run
def _(run: Path) -> None:
    first, *others = (run / "rounds.jsonl").read_text().splitlines(keepends=True)
    (run / "rounds.jsonl").write_text("".join([first, first, *others]))


@given("one with words for a number in `rounds.jsonl`")
@damaged_run
def _(run: Path) -> None:
    first, *others = (run / "rounds.jsonl").read_text().splitlines(keepends=True)
    changed = json.loads(first) | {"cohort": "everybody"}
    del changed["check"]
    (run / "rounds.jsonl").write_text("".join([json.dumps(changed) + "\n", *others]))


@given("one with another digit in `rounds.jsonl`")
@damaged_run
def _(run: Path) -> None:
    first, *others = (run / "rounds.jsonl").read_text().splitlines(keepends=True)
    changed = re.sub(r'"loss": \d', '"loss": 7', first, count=1)
    assert changed != first
    (run / "rounds.jsonl").write_text("".join([changed, *others]))


given("one in which a hospital's state is missing")(
    damaged_run(lambda run: (run / "hospitals/1/state-00002.pt").unlink())
)
given("one in which a bit of a ledger is flipped")(damaged_run(lambda run: flip(run / "hospitals/1/ledger.jsonl")))
given("one in which a ledger is missing")(damaged_run(lambda run: (run / "hospitals/1/ledger.jsonl").unlink()))
given("one in which two noise keys are swapped")(
    damaged_run(lambda run: swap(run / "hospitals/1/noise.key", run / "hospitals/2/noise.key"))
)
given("one in which a noise key is missing")(damaged_run(lambda run: (run / "hospitals/1/noise.key").unlink()))
given("one in which a list of opened rounds is empty")(
    damaged_run(lambda run: (run / "hospitals/1/answered.txt").write_text(""))
)
given("one in which a signing key is missing")(
    damaged_run(lambda run: (run / "hospitals/1/identity.key").unlink())
)


@given("`predict` with a damaged `model.ckpt`")
def _(folder: Path) -> Words:
    flip(folder / "run/model.ckpt")
    return ["predict", "run", "cell.png"]


@given("`export` of a run with a damaged `model.ckpt`")
def _(folder: Path) -> Words:
    flip(folder / "run/model.ckpt")
    return ["export", "run"]


@given("a `model.ckpt` of Python objects, which could run code")
def _(folder: Path) -> Words:
    torch.save({"state_dict": folder}, folder / "run/model.ckpt")
    return ["predict", "run", "cell.png"]


@given("`predict` on a picture that is none")
def _(folder: Path) -> Words:
    (folder / "cell.png").write_text("no picture")
    return ["predict", "run", "cell.png"]


@given("`predict` on a file of another kind")
def _(folder: Path) -> Words:
    (folder / "notes.txt").write_text("no picture")
    return ["predict", "run", "notes.txt"]


@given("`report` of a run with a damaged `summary.json`")
def _(folder: Path) -> Words:
    path = folder / "run/summary.json"
    path.write_text(path.read_text()[:-3])
    return ["report", "run"]


given("a sweep file that is damaged")(sweep_of(SWEEP + "  seed: ["))
given("a sweep of a key that there is not")(sweep_of(SWEEP.replace("seed", "sed")))
given("a sweep by a method that there is not")(sweep_of(SWEEP.replace("grid", "gird")))
given("hospitals that drop out until too few are left")(
    lambda folder: run(
        "--secagg.protocol=secagg_plus",
        "--faults.dropout.losses=[{round: 1, hospital: 0, stage: after_shares}]",
        "--faults.max_failed_rounds=0",
    )
)
given("a learning rate far too great")(lambda folder: run("--training.optimizer=SGD", "--training.lr=1e30"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, and a private one of which a person stopped the third round of four."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(run(f"--output={folder}/run")) == 0
    add = RunFolder.add_round

    def stop(self: RunFolder, record: RoundRecord) -> None:
        add(self, record)
        if record.trained.round == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "add_round", stop)
        assert main(run(f"--output={folder}/cut", *PRIVATE, federation__rounds=4)) == 130
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """All that there is, but for locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_the_table_and_the_cases_are_the_same() -> None:
    assert [line.given for line in table()] == list(CASES)
    assert min(len("".join(line.said)) for line in table()) >= 20, "words that not every message has"


@pytest.mark.parametrize("line", list(table()), ids=lambda line: line.given)
def test_a_line_of_the_table(
    line: Line, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    words = CASES[line.given](tmp_path)
    before = files(tmp_path)
    capsys.readouterr()
    code = run_job("run", words) if line.given in JOBS else main(words)
    said = capsys.readouterr()
    assert code == line.code, said.err
    assert "Traceback" not in said.err + said.out
    place, told = 0, said.err if code else said.out
    for piece in line.said:
        assert piece in told[place:], told
        place = told.index(piece, place) + len(piece)
    assert len(said.err.splitlines()) == (1 if code else 0), said.err
    assert said.err.startswith("lightning-fed: ") or not code
    after = files(tmp_path)
    kept = before
    if code == 0:
        assert (tmp_path / "cut/summary.json").exists()
        kept = {name: content for name, content in kept.items() if name.endswith(".key")}
        ledgers = [name for name in before if name.endswith("ledger.jsonl")]
        assert len(ledgers) == 3
        assert all(after[name].startswith(before[name]) for name in ledgers), "a charge stays"
    assert {name: after.get(name) for name in kept} == kept, "nothing is lost"
    new = {name for name in after.keys() - before.keys() if code == 2}
    assert not new, "nothing is written"
