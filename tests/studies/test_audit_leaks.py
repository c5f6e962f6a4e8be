"""What lies in a run's folder beside what its guarantee covers."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from lightning_fed.arguments import read_experiment
from lightning_fed.audit.leaks import UNKNOWN, Leak, leaks_in
from lightning_fed.cli import main
from lightning_fed.studies.audit_leaks import BARE, CLASSES, OWN, SEEN, SIZE, TIMING, leaks_of
from lightning_fed.tracking.audits import AuditCheck, EpsilonAudited
from lightning_fed.tracking.files import read_rounds
from lightning_fed.tracking.wandb import told_names
from tests.studies.test_audit import words


def run_of(folder: Path, mechanism: str, **changed: object) -> Path:
    own = words(
        mechanism, federation__rounds=2, ray__enabled=False, tracking__wandb="offline", output=folder, **changed
    )
    assert main(["run", *own]) == 0
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_MODE", raising=False)
        yield run_of(tmp_path_factory.mktemp("runs") / "record", "record")


def found(run: Path) -> list[Leak]:
    return leaks_of(run, read_experiment(["--config", str(run / "experiment.yaml")]))


def why(leaks: list[Leak], file: str) -> dict[str, str]:
    return {leak.name: leak.why for leak in leaks if leak.file == file}


@pytest.mark.parametrize("protocol", ["plain", "secagg_plus"])
def test_without_diagnostics_nothing_is_seen_and_the_weights_are_the_same(
    tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    same = {"privacy__reproducible": True, "secagg__protocol": protocol}
    told = run_of(tmp_path / "told", "record", **same)
    silent = run_of(tmp_path / "silent", "record", evaluation__diagnostics=False, **same)
    assert any(leak.why == SEEN for leak in found(told))
    assert not [leak.name for leak in found(silent) if leak.why in (SEEN, UNKNOWN)]
    final = [torch.load(run / "model.ckpt", weights_only=True)["state_dict"] for run in (told, silent)]
    assert all(torch.equal(value, final[1][name]) for name, value in final[0].items())
    assert all(
        line["diagnostic"] == {"train_loss": None, "fits": [], "hospitals": []}
        for line in read_rounds(silent / "rounds.jsonl")
    )
    assert json.loads((silent / "summary.json").read_text())["secagg"]["saturated"] is None
    assert "Clipping and noise by round" not in (silent / "report.html").read_text()
    assert "Training loss at each hospital" not in (silent / "report.html").read_text()


def test_every_number_of_a_private_run_is_public_covered_or_told(kept: Path) -> None:
    leaks = found(kept)
    assert all(leak.why != UNKNOWN for leak in leaks), "a new number wants a rule"
    lines = why(leaks, "rounds.jsonl")
    assert lines["[].diagnostic.train_loss"] == lines["[].diagnostic.fits[].median_norm"] == SEEN
    assert lines["[].seconds.train"] == TIMING
    assert not any(name.startswith(("[].released", "[].images", "[].steps")) for name in lines)
    summary = why(leaks, "summary.json")
    assert summary["data.classes_by_hospital[][]"] == CLASSES
    assert not any(name.startswith(("test", "privacy")) for name in summary)
    state = why(leaks, "checkpoints/*.pt")
    assert state["trained.reports[].loss"] == state["trained.reports[].spending.clipped"] == SEEN
    assert "weights" not in state
    assert why(leaks, "wandb/")["diagnostic/train_loss"] == SEEN
    own = next(leak for leak in leaks if leak.why == OWN)
    assert "ledger.jsonl" in own.name
    assert "noise.key" in own.name


def test_a_planted_number_is_told(kept: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(kept, run)
    lines = read_rounds(run / "rounds.jsonl")
    lines[1]["gradient_norm"] = 0.25
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert Leak("rounds.jsonl", "[].gradient_norm", 1, UNKNOWN) in found(run)


def test_without_a_mechanism_scores_and_weights_are_told_too(tmp_path: Path) -> None:
    leaks = found(run_of(tmp_path / "none", "none", privacy__epsilon="null", privacy__max_grad_norm=1.0))
    assert why(leaks, "rounds.jsonl")["[].released.accuracy"] == BARE
    assert why(leaks, "summary.json")["test.accuracy"] == BARE
    assert why(leaks, "checkpoints/*.pt")["weights"] == BARE
    assert why(leaks, "model.ckpt") == {"state_dict": BARE}
    assert all(leak.why != UNKNOWN for leak in leaks)


def test_where_hospitals_are_protected_their_sizes_are_told(tmp_path: Path) -> None:
    leaks = found(run_of(tmp_path / "update", "update"))
    assert why(leaks, "rounds.jsonl")["[].images[]"] == SIZE
    assert why(leaks, "summary.json")["data.images_by_hospital[]"] == SIZE
    assert why(leaks, "checkpoints/*.pt")["trained.reports[].images"] == SIZE


def test_the_longest_rule_decides_and_names_are_whole() -> None:
    values = {"a": {"b": 1, "bc": [2, 3.0], "d": True, "e": "text"}, "ab": 4}
    told = leaks_in("f", values, {"a": "why", "a.b": None})
    assert told == [Leak("f", "a.bc[]", 2, "why"), Leak("f", "ab", 1, UNKNOWN)]


def test_names_in_wandbs_file_are_read_whatever_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(
        mode="offline", dir=str(tmp_path), config={"data": {"size": 28}}, settings=wandb.Settings(console="off")
    )
    for round in range(300):  # values whose lengths look like fields, and names that blocks of the file split
        run.log({"round": round, "diagnostic/loss": 1 / (round + 3), f"diagnostic/hospital_{round}": {"a": 1.5}})
    run.log({"round": 300, "loss/hospital_3": 0.5, "train_loss": 0.1, "diagnostic/norms/3": {"least": 1.0}})
    run.summary["accuracy_of_2"] = 0.5
    run.finish()
    (path,) = (path for path in (tmp_path / "wandb").rglob("*.wandb") if not path.parent.is_symlink())
    names, end = told_names(path), time.monotonic() + 20
    while "diagnostic/norms/3" not in names and time.monotonic() < end:  # W&B may still write it
        time.sleep(0.2)
        names = told_names(path)
    assert names.keys() >= {"round", "loss/hospital_3", "train_loss", "diagnostic/norms/3"}
    assert {"accuracy_of_2", "data"} <= names.keys()
    assert all(re.fullmatch(r"[\w./]+", name) for name in names), names
    assert all(f"diagnostic/hospital_{round}" in names for round in range(300))


def test_what_an_audit_counted_is_told(kept: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(kept, run)
    checks = (AuditCheck("noise", True, "none"), AuditCheck("steps", True, "some"))
    audit = EpsilonAudited("record", 6.0, 1e-5, "all", checks, None, "", 0.95, "it may be true", False, 1.0)
    (run / "audit.json").write_text(json.dumps({"epsilon": asdict(audit), "inversion": None}))
    assert Leak("audit.json", "epsilon", 2, SEEN) in found(run)


@pytest.mark.parametrize("text", ['{"membership": ', "[]", '{"epsilon": 3}'])
def test_what_other_audits_left_and_is_damaged_is_told_in_one_line(
    kept: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(kept, tmp_path / "run")
    (run / "audit.json").write_text(text)
    assert main(["audit", "leaks", "--run", str(run)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "audit.json: " in said
    assert "put back the file" in said
