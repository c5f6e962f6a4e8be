"""The audit on real releases: sound mechanisms pass, and each planted fault is caught."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_fed.arguments import read_experiment
from lightning_fed.cli import main
from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment, Privacy
from lightning_fed.federation import protection
from lightning_fed.federation.local_work import LocalTraining
from lightning_fed.federation.protection import Permit, SampledProtection
from lightning_fed.privacy import doses, joint, sums, update
from lightning_fed.privacy.engine import HospitalOptimizer
from lightning_fed.privacy.ledger import Ledger
from lightning_fed.privacy.streams import Stream
from lightning_fed.privacy.trial import dropouts_of
from lightning_fed.report.card import card_of
from lightning_fed.report.load import read_run
from lightning_fed.studies.audit_epsilon import BUDGETS, EpsilonAudit, audit_epsilon
from lightning_fed.studies.audit_view import prepare_audit, quiet
from lightning_fed.studies.prepare import prepare

MECHANISMS = ("record", "update", "distributed")
WORDS = {
    "data.images": 160,
    "data.partition": "iid",
    "data.min_images": 8,
    "data.validation": 0.0,
    "model.width": 4,
    "training.optimizer": "SGD",
    "training.lr": 0.1,
    "training.momentum": 0.0,
    "training.schedule": "constant",
    "training.warmup_rounds": 0.0,
    "training.batch_size": 4,
    "federation.hospitals": 4,
    "federation.rounds": 30,
    "federation.local_steps": 1,
    "federation.weighting": "equal",
    "privacy.epsilon": 6.0,
    "privacy.max_grad_norm": 0.5,
    "tracking.wandb": "disabled",
}


def words(mechanism: str, **changed: Any) -> list[str]:
    """Under `update` the bound is so near the claim that other noise would now and then lift it above."""
    own: dict[str, Any] = {"privacy.mechanism": mechanism, "privacy.reproducible": mechanism == "update"}
    if mechanism == "distributed":
        own |= {"secagg.protocol": "secagg_plus", "secagg.threshold": 3, "secagg.server": "semi_honest"}
        own |= {"training.batch_size": 16}
    keys = WORDS | own | {name.replace("__", "."): value for name, value in changed.items()}
    return [f"--{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in keys.items()]


def experiment(mechanism: str, **changed: Any) -> Experiment:
    return read_experiment(words(mechanism, **changed))


def audit(wanted: Experiment, **changed: Any) -> EpsilonAudit:
    return audit_epsilon(prepare_audit(wanted), replace(BUDGETS["seconds"], **changed))


def failed(found: EpsilonAudit) -> set[str]:
    refuted = any(not check.passed for check in found.checks) or (found.bound or 0) > found.claimed
    assert found.refuted == refuted
    return {check.name for check in found.checks if not check.passed}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_sound_mechanism_passes_and_its_bound_lies_below_the_claim(mechanism: str) -> None:
    found = audit(experiment(mechanism), whole=True, canaries=1000)
    assert failed(found) == set()
    assert found.bound is not None
    assert 0 < found.bound <= found.claimed <= 6.0
    ratio = next(check for check in found.checks if check.name == "noise").values["ratio"]
    assert ratio == pytest.approx(1.0, abs=0.08)


def test_with_several_samples_in_a_sum_too() -> None:
    found = audit(experiment("distributed", federation__local_steps=3))
    assert failed(found) == set()


def without_noise(self: HospitalOptimizer) -> None:
    for parameter in self.params:
        total = parameter.summed_grad
        parameter.grad = parameter.new_zeros(parameter.shape) if total is None else total.clone()


def test_noise_that_is_left_out_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the published pipeline did."""
    monkeypatch.setattr(HospitalOptimizer, "add_noise", without_noise)
    monkeypatch.setattr(protection, "add_noise", lambda clipped, deviation, stream: clipped)
    monkeypatch.setattr(sums, "add_share", lambda vector, dose, noise: vector)
    for mechanism in MECHANISMS:
        found = audit(experiment(mechanism))
        assert "noise" in failed(found), mechanism
        assert found.seconds < 60


def test_half_the_noise_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, add_noise, share = HospitalOptimizer.add_noise, update.add_noise, sums.add_share

    def half(self: HospitalOptimizer) -> None:
        self.noise_multiplier /= 2
        whole(self)
        self.noise_multiplier *= 2

    monkeypatch.setattr(HospitalOptimizer, "add_noise", half)
    monkeypatch.setattr(
        protection, "add_noise", lambda clipped, much, stream: add_noise(clipped, much / 2, stream)
    )
    monkeypatch.setattr(
        sums,
        "add_share",
        lambda vector, dose, noise: share(
            vector, replace(dose, noise_multiplier=dose.noise_multiplier / 2), noise
        ),
    )
    for mechanism in MECHANISMS:
        assert "noise" in failed(audit(experiment(mechanism))), mechanism


def test_one_noise_for_all_hospitals_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(self: Permit, purpose: str) -> Any:
        names = purpose, self.charge.round, self.charge.attempt if purpose == "noise" else self.charge.hospital
        return protection.Secret(b"the same for all").stream(*names)

    monkeypatch.setattr(Permit, "stream", shared)
    assert "independence" in failed(audit(experiment("record")))
    assert "independence" in failed(audit(experiment("update")))
    assert "noise" in failed(audit(experiment("distributed"))), "of a sum: the same noise four times over"


def test_one_noise_for_all_rounds_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(self: Permit, purpose: str) -> Any:
        names = purpose, self.charge.hospital, 0 if purpose == "noise" else self.charge.round
        return protection.Secret(b"the same in each").stream(*names)

    monkeypatch.setattr(Permit, "stream", shared)
    for mechanism in MECHANISMS:
        assert "independence" in failed(audit(experiment(mechanism))), mechanism


def test_a_budget_that_is_spent_anew_in_each_round_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an engine does that is made in each round: noise for one round, and nobody counts them."""
    monkeypatch.setattr(doses, "most_rounds", lambda experiment: 1)
    monkeypatch.setattr(Ledger, "affords_a_round", True)
    for mechanism in MECHANISMS:
        assert "composition" in failed(audit(experiment(mechanism))), mechanism


def test_a_ledger_that_forgets_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    append = Ledger._append

    def forgetful(self: Ledger, content: dict[str, Any]) -> None:
        if content.get("charge", {}).get("round", 0) < first:
            append(self, content)

    monkeypatch.setattr(Ledger, "_append", forgetful)
    for mechanism in MECHANISMS:
        first = 2
        assert "steps" in failed(audit(experiment(mechanism))), mechanism
        first = 1
        assert failed(audit(experiment(mechanism))) >= {"steps", "composition"}, mechanism


def test_an_audit_asks_as_many_hospitals_as_the_run_and_calibrates_the_same_noise() -> None:
    wanted = experiment(
        "distributed",
        federation__hospitals=6,
        federation__participation=0.7,
        federation__over_selection=1.25,
        secagg__threshold=4,
    )
    asked = prepare(replace(wanted, output=None)).roster.doses
    assert quiet(wanted).federation.cohort_size == wanted.federation.cohort_size == 5
    assert prepare_audit(wanted).roster.doses == asked


def test_a_network_with_dropout_is_refused_and_not_refuted() -> None:
    prepared = prepare_audit(experiment("record"))
    network = nn.Sequential(prepared.classifier.network, nn.Dropout(0.0))
    assert not dropouts_of(network)
    prepared.classifier.network = nn.Sequential(prepared.classifier.network, nn.Dropout(0.5))
    with pytest.raises(InputError, match="dropout, and its gradients cannot be recomputed"):
        audit_epsilon(prepared, BUDGETS["seconds"])


def test_a_sensitivity_of_1_for_a_clip_of_7_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Privacy, "deviation_per_multiplier", 1.0)
    found = audit(experiment("update", privacy__max_grad_norm=7.0))
    assert "noise" in failed(found)
    assert next(check for check in found.checks if check.name == "noise").values["ratio"] == pytest.approx(
        1 / 49, rel=0.1
    )


def test_gradients_that_are_not_clipped_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_fed.privacy.clipping.ways import ClippedSums

    gather = ClippedSums.sums

    def longer(self: ClippedSums) -> Any:
        norms, found = gather(self)
        return norms, [(parameter, 3 * total) for parameter, total in found]

    prepared = prepare_audit(experiment("record"))  # whose trial of the network would refuse it
    monkeypatch.setattr(ClippedSums, "sums", longer)
    assert "signal" in failed(audit_epsilon(prepared, BUDGETS["seconds"]))


def test_shuffling_in_place_of_poissons_samples_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image once in ten rounds, in another order each time."""
    plan = SampledProtection.plan

    def shuffled(self: SampledProtection, permit: Permit) -> Any:
        epoch, place = divmod(permit.charge.round - 1, 10)
        order = np.random.default_rng([epoch, self.hospital]).permutation(self.images)
        return replace(plan(self, permit), draws=(np.sort(order[place::10]),))

    monkeypatch.setattr(SampledProtection, "plan", shuffled)
    quiet = experiment("record", privacy__epsilon="null", privacy__noise_multiplier=0.5)
    assert "sampling" in failed(audit(quiet))


def test_batches_that_are_not_those_drawn_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan is drawn, and the hospital goes through its images in turn."""
    do = LocalTraining.do

    def in_turn(self: LocalTraining, round: int, plan: Any, weights: Any) -> Any:
        first = np.arange(len(plan.draws[0]))
        self.images.plan = replace(plan, draws=(first,) * len(plan.draws))
        return do(self, round, self.images.plan, weights)

    monkeypatch.setattr(LocalTraining, "do", in_turn)
    assert "images" in failed(audit(experiment("record")))


def test_samples_of_one_size_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = SampledProtection.plan

    def fixed(self: SampledProtection, permit: Permit) -> Any:
        random = np.random.default_rng([permit.charge.round, self.hospital])
        size = round(self.dose.rate * self.images)
        return replace(plan(self, permit), draws=(np.sort(random.choice(self.images, size, replace=False)),))

    monkeypatch.setattr(SampledProtection, "plan", fixed)
    assert "sizes" in failed(audit(experiment("record"), rounds=8))


def test_noise_that_does_not_leave_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn, logged and counted; the step is taken by the sum without it."""
    scale = HospitalOptimizer.scale_grad

    def without(self: HospitalOptimizer) -> None:
        for parameter in self.params:
            if parameter.summed_grad is not None:
                parameter.grad = parameter.summed_grad.clone()
        scale(self)

    monkeypatch.setattr(HospitalOptimizer, "scale_grad", without)
    assert failed(audit(experiment("record"))) == {"release"}


def test_a_step_without_images_that_has_no_noise_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    add_noise = HospitalOptimizer.add_noise

    def sometimes(self: HospitalOptimizer) -> None:
        if any(parameter.summed_grad is not None for parameter in self.params):
            add_noise(self)
            return
        for parameter in self.params:
            parameter.grad = parameter.new_zeros(parameter.shape)

    monkeypatch.setattr(HospitalOptimizer, "add_noise", sometimes)
    few = experiment("record", training__batch_size=1)
    assert "noise" in failed(audit(few, rounds=10)), "of 40 samples of one image in the mean, 15 are empty"


def test_signs_in_place_of_normal_noise_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    normal = Stream.normal
    monkeypatch.setattr(Stream, "normal", lambda self, count: normal(self, count).sign())
    for mechanism in ("record", "update"):
        found = failed(audit(experiment(mechanism)))
        assert "distribution" in found, mechanism
        assert "independence" not in found, mechanism


def test_noise_that_repeats_within_a_release_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    normal = Stream.normal

    def twice(self: Stream, count: int) -> Any:
        half = normal(self, -(-count // 2))
        return torch.cat([half, half])[:count]

    monkeypatch.setattr(Stream, "normal", twice)
    assert "distribution" in failed(audit(experiment("record")))


def test_a_sensitivity_that_is_too_small_is_caught_in_a_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    sensitivity = joint.sensitivity
    monkeypatch.setattr(joint, "sensitivity", lambda of: (sensitivity(of)[0] / 7, sensitivity(of)[1] / 7))
    assert "composition" in failed(audit(experiment("distributed")))


def test_an_update_that_is_not_clipped_raises_the_bound_above_the_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "clip", lambda update, most: (update, 0.0))
    found = audit(experiment("update"))
    assert found.bound is not None
    assert found.bound > found.claimed


def test_a_run_whose_noise_follows_from_the_seed_is_told() -> None:
    assert "whoever knows it can take it off" in audit(experiment("update")).verdict


def test_a_budget_that_pays_for_some_rounds_is_claimed_for_those() -> None:
    found = audit(experiment("record", privacy__noise_multiplier=1.0, privacy__epsilon=2.0))
    assert failed(found) == set()
    assert found.claimed <= 2.0


@pytest.mark.parametrize(
    "changed",
    [
        {"training__augment": True, "training__views": 2},
        {"federation__local_steps": 3, "training__optimizer": "Adam"},
        {"federation__strategy": "fedprox", "training__momentum": 0.9, "privacy__physical_batch_size": 2},
        {"federation__participation": 0.75, "data__partition": "quantity"},
    ],
)
def test_sound_runs_of_other_settings_pass(changed: dict[str, Any]) -> None:
    assert failed(audit(experiment("record", **changed))) == set()


def test_samples_that_are_larger_than_charged_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = SampledProtection.plan

    def more(self: SampledProtection, permit: Permit) -> Any:
        self.dose = replace(self.dose, rate=self.dose.rate * 1.5)
        try:
            return plan(self, permit)
        finally:
            self.dose = replace(self.dose, rate=self.dose.rate / 1.5)

    monkeypatch.setattr(SampledProtection, "plan", more)
    assert "sampling" in failed(audit(experiment("record")))
    assert "sampling" in failed(audit(experiment("distributed")))


def test_a_bound_above_a_small_claim_refutes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HospitalOptimizer, "add_noise", without_noise)
    found = audit(experiment("record", privacy__epsilon=1.0), whole=True)
    assert found.bound is not None
    assert found.bound > found.claimed
    monkeypatch.setattr(protection, "add_noise", lambda clipped, deviation, stream: clipped)
    found = audit(experiment("update", privacy__epsilon=1.0))
    assert found.bound is not None
    assert found.bound > found.claimed


def test_the_command_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "audit.json").write_text('{"leaks": []}')
    assert main(["audit", "epsilon", "--budget", "seconds", "--output", str(tmp_path), *words("update")]) == 0
    told = json.loads((tmp_path / "audit.json").read_text())
    assert set(told) == {"leaks", "epsilon"}
    assert told["epsilon"]["bound"] < told["epsilon"]["claimed"] <= 6.0
    assert not told["epsilon"]["refuted"]
    assert {check["name"] for check in told["epsilon"]["checks"]} >= {"noise", "steps", "composition"}
    shown = capsys.readouterr().out
    assert "lower bound" in shown
    assert "the claim may be true" in shown or "nothing speaks against the claim" in shown


def test_a_kept_run_and_its_ledgers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    own = words("update", federation__rounds=2, ray__enabled=False, output=folder)
    assert main(["run", *own]) == 0
    command = ["audit", "epsilon", "--budget", "seconds", "--run", str(folder)]
    assert main(command) == 0
    assert (folder / "audit.json").exists()
    page = (folder / "report.html").read_text()
    assert "Audited, against whoever sees a hospital" in page
    assert 'aria-label="Lower bounds on epsilon: ' in page
    assert main(["audit", "leaks", "--run", str(folder)]) == 0
    card = card_of(read_run(folder))
    assert "## Audit" in card
    assert "| composition | holds |" in card
    assert "| rounds.jsonl | [].diagnostic.fits[].loss | 8 |" in card
    ledger = folder / "hospitals" / "1" / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(line for line in lines if '"round": 2' not in line))
    capsys.readouterr()
    assert main(command) == 4
    assert "the claim does not hold: ledgers of the run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "say which one: lightning-fed audit epsilon"),
        (["epsilom"], "no audit 'epsilom': did you mean 'epsilon'?"),
        (["leaks"], "--run"),
        (["leaks", "--run", "/nowhere"], "holds no finished run"),
        (["epsilon", "--budget", "eternity"], "--budget"),
        (["epsilon", "--run", "/nowhere"], "holds no finished run"),
        (["epsilon", "--privacy.mechanism=none"], "claims no epsilon"),
        (
            ["epsilon", "--privacy.mechanism=update", "--privacy.noise=false", "--federation.weighting=equal"],
            "claims no epsilon",
        ),
        (["epsilon", "--privacy.epsilonn=3"], "privacy.epsilonn"),
    ],
)
def test_bad_options_are_one_line(given: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
