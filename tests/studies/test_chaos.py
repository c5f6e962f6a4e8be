"""The chaos command: what it draws, and that a promise which does not hold is noticed."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_fed.arguments import read_experiment
from lightning_fed.cli import main
from lightning_fed.experiment import Experiment
from lightning_fed.privacy import update
from lightning_fed.privacy.dose import Dose
from lightning_fed.secagg.wire import pack
from lightning_fed.studies.chaos import FAULTS, MECHANISMS, TRIALS, Trial, trials, words_of
from lightning_fed.studies.chaos_life import BrokenError, Life
from lightning_fed.studies.chaos_promises import check_promises, repeat
from lightning_fed.tracking.files import read_rounds

SEED = 5
ROUNDS = 4


def trial(mechanism: str, protocol: str) -> Trial:
    return Trial(0, mechanism, protocol, ())


def words(mechanism: str, protocol: str, output: Path) -> list[str]:
    """Of a short trial in this process."""
    kept = [word for word in words_of(trial(mechanism, protocol), SEED, output, "") if "--ray." not in word]
    return [*kept, "--ray.enabled=false", f"--federation.rounds={ROUNDS}"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Experiment, Path]]:
    """A finished run under masks of each mechanism with noise."""
    folder, made = tmp_path_factory.mktemp("runs"), {}
    for mechanism in ("record", "update", "distributed"):
        own = words(mechanism, "secagg_plus", folder / mechanism)
        assert main(["run", *own]) == 0
        made[mechanism] = read_experiment(own), folder / mechanism
    return made


@pytest.fixture
def run(
    runs: dict[str, tuple[Experiment, Path]], tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[Experiment, Path]:
    """A copy of one of them."""
    experiment, output = runs[request.param]
    shutil.copytree(output, tmp_path / "run")
    return experiment, tmp_path / "run"


every = pytest.mark.parametrize("run", ["record", "update", "distributed"], indirect=True)
one = pytest.mark.parametrize("run", ["update"], indirect=True)


def test_a_few_dozen_trials_strike_every_mechanism_with_every_fault() -> None:
    for seed in range(5):
        drawn = list(itertools.islice(trials(seed), 33))
        assert drawn == list(itertools.islice(trials(seed), 33))
        assert {(one.mechanism, one.protocol) for one in drawn[:11]} == set(TRIALS)
        struck = {(one.mechanism, fault.name) for one in drawn for fault in one.faults}
        possible = {(name, fault.name) for name in MECHANISMS for fault in FAULTS if name not in fault.without}
        assert struck == possible
        assert sum(len(one.faults) for one in drawn) >= 7 * len(drawn)
        for one in drawn:
            assert all(one.protocol not in fault.without for fault in one.faults)


@pytest.mark.parametrize(("mechanism", "protocol"), TRIALS)
def test_every_trial_is_an_experiment(mechanism: str, protocol: str, tmp_path: Path) -> None:
    experiment = read_experiment(words_of(trial(mechanism, protocol), SEED, tmp_path / "run", "127.0.0.1:1"))
    assert (experiment.privacy.mechanism, experiment.secagg.protocol) == (mechanism, protocol)


@every
def test_a_sound_run_keeps_the_promises(run: tuple[Experiment, Path]) -> None:
    experiment, output = run
    check_promises(experiment, output, [])


@one
def test_other_weights_are_noticed(run: tuple[Experiment, Path]) -> None:
    experiment, output = run
    content = torch.load(output / "model.ckpt", weights_only=True)
    next(iter(content["state_dict"].values())).view(-1)[0] += 1e-6
    torch.save(content, output / "model.ckpt")
    with pytest.raises(BrokenError, match="promises 5 and 6"):
        check_promises(experiment, output, [])


@every
def test_an_update_in_clear_is_noticed(run: tuple[Experiment, Path], tmp_path: Path) -> None:
    experiment, output = run
    clear = repeat(experiment, read_rounds(output / "rounds.jsonl"), tmp_path / "again").clear
    (tmp_path / "worker.out").write_bytes(b"a line\n" + clear[3, 2].tobytes())
    with pytest.raises(BrokenError, match=r"promise 1: .*worker\.out holds an update in clear"):
        check_promises(experiment, output, [tmp_path])


@every
@pytest.mark.parametrize("packed", [False, True])
def test_an_update_before_its_mask_is_noticed(run: tuple[Experiment, Path], tmp_path: Path, packed: bool) -> None:
    experiment, output = run
    vector = repeat(experiment, read_rounds(output / "rounds.jsonl"), tmp_path / "again").encoded[-1]
    (tmp_path / "store").write_bytes(pack(vector, 20).tobytes() if packed else vector.tobytes())
    with pytest.raises(BrokenError, match=r"promise 1: .*store holds an update in clear"):
        check_promises(experiment, output, [tmp_path])


@one
def test_a_stop_with_budget_left_is_noticed(run: tuple[Experiment, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, output = run
    summary = json.loads((output / "summary.json").read_text())
    (output / "summary.json").write_text(json.dumps(summary | {"status": "stopped_on_budget"}))
    check_promises(experiment, output, [])  # whose budget all rounds have spent
    shutil.rmtree(output.with_name("run-repeated"))
    monkeypatch.setattr(Dose, "affords", lambda *_: True)
    with pytest.raises(BrokenError, match="4 hospitals have not spent their own"):
        check_promises(experiment, output, [])


@every
def test_a_forgotten_charge_is_noticed(run: tuple[Experiment, Path]) -> None:
    experiment, output = run
    ledger = output / "hospitals" / "1" / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(line for line in lines if '"round": 3' not in line))
    with pytest.raises(BrokenError, match="promise 2: hospital 1"):
        check_promises(experiment, output, [])


def rewrite(output: Path, change: Any) -> None:
    summary = json.loads((output / "summary.json").read_text())
    change(summary["privacy"])
    (output / "summary.json").write_text(json.dumps(summary))


@one
def test_an_epsilon_of_one_round_is_noticed(run: tuple[Experiment, Path]) -> None:
    experiment, output = run

    def of_one_round(told: dict[str, Any]) -> None:
        told["epsilon_by_hospital"] = [told["epsilon"] / ROUNDS] * 4
        told["epsilon"] /= ROUNDS

    rewrite(output, of_one_round)
    with pytest.raises(BrokenError, match="promise 3"):
        check_promises(experiment, output, [])


@one
def test_half_the_noise_is_noticed_though_all_of_it_is_charged(
    run: tuple[Experiment, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the run itself and its repetition both lack it, so that they agree."""
    experiment, output = run
    add_noise = update.add_noise

    def less(clipped: Any, deviation: float, stream: Any) -> Any:
        return add_noise(clipped, deviation / 2, stream)

    monkeypatch.setattr("lightning_fed.federation.protection.add_noise", less)
    shutil.rmtree(output)
    assert main(["run", *words("update", "secagg_plus", output)]) == 0
    with pytest.raises(BrokenError, match="promise 4: hospital 0 let out a deviation of"):
        check_promises(experiment, output, [])


@one
def test_one_noise_for_all_hospitals_is_noticed(
    run: tuple[Experiment, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, output = run

    def shared(clipped: Any, deviation: float, stream: Any) -> Any:
        noise = np.random.default_rng(0).standard_normal(len(clipped))
        return (clipped + deviation * noise).astype(np.float32)

    monkeypatch.setattr("lightning_fed.federation.protection.add_noise", shared)
    shutil.rmtree(output)
    assert main(["run", *words("update", "secagg_plus", output)]) == 0
    with pytest.raises(BrokenError, match="the noises of two hospitals are correlated"):
        check_promises(experiment, output, [])


@one
def test_a_number_without_a_tag_is_noticed(run: tuple[Experiment, Path]) -> None:
    experiment, output = run
    lines = read_rounds(output / "rounds.jsonl")
    lines[1]["loss"] = 0.5
    (output / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(BrokenError, match=r"promise 7: round 2 has \['loss'\]"):
        check_promises(experiment, output, [])


def test_a_bad_end_is_noticed(tmp_path: Path) -> None:
    for output, told in (("own", "ended with 1"), ("unknown", "ended with 2"), ("shown", "a traceback")):
        life = Life(tmp_path / output, ["--no.such.key=1"], None)  # type: ignore[arg-type]
        life.start()
        life.wait_for(lambda: False)
        if output == "shown":
            with life.log.open("a") as log:
                log.write("Traceback (most recent call last):\n")
        if output == "own":
            assert life.process is not None
            life.process.wait = lambda: 1  # type: ignore[method-assign, assignment]
        with pytest.raises(BrokenError, match=told):
            life.ended()


@pytest.mark.parametrize("options", [["--minutes", "0"], ["--only", "-1"], ["--hours", "1"]])
def test_bad_options_are_one_line(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", *options]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
