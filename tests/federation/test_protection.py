"""Privacy through the hospital: the noise is in what leaves, it is paid before, and never serves twice."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lightning_fed.data.datamodule import DrawnPlan, PlannedBatch
from lightning_fed.errors import InputError
from lightning_fed.experiment import Model, Training
from lightning_fed.federation.local_work import LocalTraining
from lightning_fed.federation.protection import Permit, RecordProtection, check_record
from lightning_fed.federation.site import build_classifier
from lightning_fed.models.classifier import Classifier
from lightning_fed.privacy.ledger import BudgetSpentError, Ledger
from tests.federation.protected import (
    MASKED,
    clipped_gradients,
    clipped_update,
    driver_of,
    experiment,
    first_weights,
    images,
    ledger_lines,
    noise_in,
    protection,
    released,
    site_of,
    with_changes,
)

MECHANISMS = ["record", "update"]


def is_charged_noise(noise: Any) -> None:
    """Standard normal numbers, by deviation and by shape."""
    assert noise.std() == pytest.approx(1, rel=5 / np.sqrt(2 * len(noise)))
    assert abs(noise.mean()) < 5 / np.sqrt(len(noise))
    assert stats.kstest(noise, "norm").pvalue > 1e-4


def independent(*noises: Any) -> bool:
    """Whether no two vectors are correlated beyond chance, nor one with another shifted by one place."""
    pairs = [(one, other) for place, one in enumerate(noises) for other in noises[:place]]
    shifted = [(one[1:], other[:-1]) for one, other in pairs]
    most = 5 / np.sqrt(len(noises[0]))
    return all(abs(np.corrcoef(one, other)[0, 1]) < most for one, other in pairs + shifted)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("reproducible", [True, False])
def test_what_leaves_carries_the_charged_noise(mechanism: str, reproducible: bool) -> None:
    """Promise 4, from end to end."""
    settings = experiment(mechanism, reproducible=reproducible)
    site, weights = site_of(settings), first_weights(settings)
    update = released(site, 1, 1, weights)
    is_charged_noise(noise_in(site, 1, weights, update))
    charge = protection(site, 1).ledger.charges[0]
    assert (charge.steps, charge.noise_multiplier) == (1, 1.2)


def test_noise_for_a_hospital_that_is_replaced_is_twice_that_for_one_that_is_blanked() -> None:
    settings = experiment("update", sensitivity="replace_one")
    site, weights = site_of(settings), first_weights(settings)
    extra = released(site, 0, 1, weights) - clipped_update(site, 0, weights)
    assert extra.std() == pytest.approx(1.2 * 2 * 0.5, rel=0.06)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_noises_of_hospitals_rounds_weights_and_resumes_have_nothing_in_common(
    tmp_path: Path, mechanism: str
) -> None:
    settings = experiment(mechanism, reproducible=True)
    weights = first_weights(settings)
    site = site_of(settings, tmp_path)
    noises = [
        noise_in(site, hospital, weights, released(site, hospital, round, weights))
        for hospital in (0, 1)
        for round in (1, 2)
    ]
    resumed = site_of(settings, tmp_path)
    resumed.restore(0, 1)
    others = weights + np.float32(1e-7)
    noises.append(noise_in(resumed, 0, others, released(resumed, 0, 2, others)))
    assert independent(*noises)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_round_done_again_leaves_to_the_bit_as_before_and_is_not_charged_again(
    tmp_path: Path, mechanism: str, optimizer: str
) -> None:
    settings = with_changes(experiment(mechanism), training={"optimizer": optimizer, "lr": 0.01})
    weights = first_weights(settings)
    site = site_of(settings, tmp_path)
    first = released(site, 0, 1, weights)
    second = released(site, 0, 2, weights + first)
    before = ledger_lines(tmp_path, 0)
    assert len(before) == 4  # two charges, two releases
    resumed = site_of(settings, tmp_path)
    resumed.restore(0, 1)
    assert released(resumed, 0, 2, weights + first).tobytes() == second.tobytes()
    assert ledger_lines(tmp_path, 0) == before
    restarted = site_of(settings, tmp_path)  # killed before the first checkpoint
    assert released(restarted, 0, 1, weights).tobytes() == first.tobytes()
    assert ledger_lines(tmp_path, 0) == before


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_round_done_again_from_other_weights_is_charged_and_has_other_noise(
    tmp_path: Path, mechanism: str
) -> None:
    settings = experiment(mechanism, reproducible=True)
    weights = first_weights(settings)
    site = site_of(settings, tmp_path)
    once = noise_in(site, 0, weights, released(site, 0, 1, weights))
    others = weights.copy()
    others[7] = np.nextafter(others[7], np.float32(9))
    again = site_of(settings, tmp_path)
    other = noise_in(again, 0, others, released(again, 0, 1, others))
    assert independent(once, other)
    assert protection(again, 0).ledger.spent == 2


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_round_done_again_from_another_optimizer_state_is_charged(tmp_path: Path, mechanism: str) -> None:
    settings = with_changes(experiment(mechanism), training={"optimizer": "AdamW", "lr": 0.01})
    weights = first_weights(settings)
    site = site_of(settings, tmp_path)
    for _ in range(2):  # the second time with the moments of the first
        released(site, 0, 1, weights)
    assert protection(site, 0).ledger.spent == 2


def spoil(monkeypatch: pytest.MonkeyPatch, times: int = 1) -> list[int]:
    """Let the next trainings end elsewhere than they should; how many have."""
    train, spoilt = LocalTraining.train, []

    def elsewhere(self: LocalTraining, trainer: Any) -> None:
        train(self, trainer)
        if len(spoilt) < times:
            spoilt.append(1)
            with torch.no_grad():
                next(self.classifier.network.parameters()).view(-1)[0] += 1e-3

    monkeypatch.setattr(LocalTraining, "train", elsewhere)
    return spoilt


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("reset", [True, False])
def test_a_round_that_does_not_repeat_is_charged_anew_and_only_its_other_noise_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mechanism: str, reset: bool
) -> None:
    settings = with_changes(experiment(mechanism), training={"reset_optimizer_state": reset})
    weights = first_weights(settings)
    site = site_of(settings, tmp_path)
    once = noise_in(site, 0, weights, released(site, 0, 1, weights))
    again = site_of(settings, tmp_path)
    with monkeypatch.context() as patch:
        spoilt = spoil(patch)
        update = released(again, 0, 1, weights)
    assert spoilt == [1]
    noise = noise_in(again, 0, weights, update)
    is_charged_noise(noise)  # of the second training, which was not spoilt
    assert independent(once, noise)
    ledger = protection(again, 0).ledger
    assert [charge.attempt for charge in ledger.charges] == [0, 1]
    assert [release.attempt for release in ledger.releases] == [0, 1]
    assert ledger.spent == 2
    third = site_of(settings, tmp_path)  # and that one repeats
    assert released(third, 0, 1, weights).tobytes() == update.tobytes()
    assert len(ledger_lines(tmp_path, 0)) == 4


@pytest.mark.parametrize("reset", [True, False])
def test_nothing_of_a_training_that_may_not_leave_is_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reset: bool
) -> None:
    """Its moments hold the noise that left before, under other images' gradients."""
    settings = with_changes(
        experiment(), training={"optimizer": "AdamW", "lr": 0.01, "reset_optimizer_state": reset}
    )
    weights = first_weights(settings)
    released(site_of(settings, tmp_path), 0, 1, weights)
    states: list[int] = []
    train = LocalTraining.train

    def noted(self: LocalTraining, trainer: Any) -> None:
        states.append(len(self.classifier.configure_optimizers().state))
        train(self, trainer)
        if len(states) == 1:
            with torch.no_grad():
                next(self.classifier.network.parameters()).add_(1e-3)

    monkeypatch.setattr(LocalTraining, "train", noted)
    released(site_of(settings, tmp_path), 0, 1, weights)
    assert states == [0, 0]


def test_a_killed_second_attempt_goes_on_with_its_own_charge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = experiment()
    weights = first_weights(settings)
    released(site_of(settings, tmp_path), 0, 1, weights)
    ledger = protection(site_of(settings, tmp_path), 0).ledger
    ledger.charge(1, ledger.charges[0].inputs, anew=True)  # killed before it released anything
    again = site_of(settings, tmp_path)
    released(again, 0, 1, weights)
    assert [release.attempt for release in protection(again, 0).ledger.releases] == [0, 1]
    assert protection(again, 0).ledger.spent == 2


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_round_is_on_disk_before_it_is_trained_and_before_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> None:
    """Promise 2."""
    settings = experiment(mechanism)
    seen: list[int] = []
    train, release = LocalTraining.train, Ledger.release

    def noted_train(self: LocalTraining, trainer: Any) -> None:
        seen.append(len(ledger_lines(tmp_path, 0)))
        train(self, trainer)

    def noted_release(self: Ledger, charge: Any, output: bytes) -> bool:
        seen.append(len(ledger_lines(tmp_path, 0)))
        return release(self, charge, output)

    monkeypatch.setattr(LocalTraining, "train", noted_train)
    monkeypatch.setattr(Ledger, "release", noted_release)
    released(site_of(settings, tmp_path), 0, 1, first_weights(settings))
    assert seen == [1, 1]
    assert len(ledger_lines(tmp_path, 0)) == 2


def test_a_round_that_the_budget_does_not_pay_for_is_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = experiment("update", epsilon=8.0, participations=1, noise_multiplier=None)
    site, weights = site_of(settings), first_weights(settings)
    assert site.affords(0, 1)
    own = site.hospitals[0]
    own.fit(1, weights)
    assert site.affords(0, 1)  # that round is paid
    assert not site.affords(0, 2)
    monkeypatch.setattr(LocalTraining, "train", lambda *_: pytest.fail("trained without a charge"))
    with pytest.raises(BudgetSpentError, match="hospital 0 has spent its privacy budget"):
        own.fit(2, weights)
    assert site.fit(0, 2, weights, parts=2) == (None, None, None)


def permit_of(settings: Any, round: int = 1) -> tuple[RecordProtection, Permit]:
    own = protection(site_of(settings), 0)
    assert isinstance(own, RecordProtection)
    return own, own.begin(round, first_weights(settings), {})


@pytest.mark.parametrize("reproducible", [True, False])
def test_each_image_is_sampled_by_its_own_chance_at_each_step(reproducible: bool) -> None:
    """Binomial counts, and independent of each other: the sizes of batches spread as they should."""
    settings = with_changes(
        experiment(sample_rate=0.13, reproducible=reproducible), federation={"local_steps": 3000}
    )
    own, permit = permit_of(settings)
    plan = own.plan(permit)
    assert plan.length == 3000
    drawn = np.zeros((plan.length, own.images), dtype=bool)
    for step, positions in enumerate(plan.draws):
        drawn[step, positions] = True
    for axis, size in ((0, 3000), (1, own.images)):
        counts = drawn.sum(axis)
        expected = size * 0.13 * 0.87
        statistic = ((counts - size * 0.13) ** 2 / expected).sum()
        assert 1e-5 < stats.chi2(len(counts)).sf(statistic) < 1 - 1e-5
    pairs = np.corrcoef(drawn.T)[np.triu_indices(own.images, 1)]
    assert np.abs(pairs).max() < 5 / np.sqrt(3000)
    following = np.corrcoef(drawn[1:].ravel(), drawn[:-1].ravel())[0, 1]
    assert abs(following) < 5 / np.sqrt(drawn.size)


def test_the_rate_that_is_sampled_is_the_one_that_is_charged_and_the_steps_too() -> None:
    settings = with_changes(experiment(), federation={"local_steps": 5})
    own, permit = permit_of(settings)
    assert permit.charge.rate == 6 / own.images
    assert own.dose.batch == pytest.approx(6)
    assert own.plan(permit).length == permit.charge.steps == 5


def test_a_round_of_empty_batches_is_trained_noised_and_charged() -> None:
    settings = with_changes(experiment(sample_rate=1e-9), federation={"local_steps": 4})
    site, weights = site_of(settings), first_weights(settings)
    report, update = site.fit(0, 1, weights)
    assert report.loss == 0.0
    assert report.spending.steps == 4
    batch = protection(site, 0).dose.batch
    deviation = 2 * 1.2 * 0.5 / batch * 0.5  # four steps
    assert np.std(update) == pytest.approx(deviation, rel=0.06)


def test_other_steps_than_were_charged_release_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = with_changes(experiment(), federation={"local_steps": 3})
    site, weights = site_of(settings), first_weights(settings)
    plan = RecordProtection.plan

    def shorter(self: RecordProtection, permit: Permit) -> DrawnPlan:
        whole = plan(self, permit)
        return DrawnPlan(whole.draws[:-1], whole.images, whole.load, whole.views, whole.seed, 0, 1)

    monkeypatch.setattr(RecordProtection, "plan", shorter)
    with pytest.raises(RuntimeError, match="2 noised steps where 3 were charged"):
        site.fit(0, 1, weights)
    assert protection(site, 0).ledger.releases == []


@given(st.sets(st.integers(0, 19)), st.sets(st.integers(0, 19)), st.integers(1, 3), st.integers(1, 4))
def test_how_an_image_is_turned_does_not_depend_on_which_others_are_sampled(
    one: set[int], other: set[int], views: int, load: int
) -> None:
    def turns(drawn: set[int]) -> dict[int, list[int]]:
        found = {}
        plan = DrawnPlan((np.array(sorted(drawn), dtype=np.int64),), 20, load, views, 3, 0, 1)
        for batch in plan.batches():
            by_image = plan.turns(batch).reshape(-1, views)
            found |= {int(place): list(row) for place, row in zip(batch.positions, by_image, strict=True)}
        return found

    first, second = turns(one), turns(other)
    assert first.keys() == one
    assert all(first[image] == second[image] for image in one & other)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 4))
def test_loads_hold_every_drawn_image_once_and_end_every_step_once(sizes: list[int], load: int) -> None:
    draws = tuple(np.arange(size) for size in sizes)
    plan = DrawnPlan(draws, 10, load, 1, 3, 0, 1)
    batches: list[PlannedBatch] = list(plan.batches())
    assert plan.loads == len(batches)
    assert [batch.step for batch in batches if batch.last] == list(range(len(sizes)))
    for step, draw in enumerate(draws):
        own = [batch.positions for batch in batches if batch.step == step]
        assert np.array_equal(np.concatenate(own), draw)
        assert all(len(part) <= load for part in own)
        assert len(draw) == 1 or load < 3 or min(map(len, own)) != 1, "its gradient would be rounded otherwise"
    assert [plan.step_of(place) for place in range(len(batches))] == [batch.step for batch in batches]


@pytest.mark.parametrize("clipping", ["hooks", "ghost", "functorch", "one_pass"])
def test_microbatches_and_ways_of_clipping_change_only_the_rounding(clipping: str) -> None:
    settings = with_changes(experiment(reproducible=True), training={"batch_size": 20})
    weights = first_weights(settings)
    site = site_of(with_changes(settings, privacy={"clipping": clipping, "physical_batch_size": 3}))
    noise = noise_in(site, 0, weights, released(site, 0, 1, weights))
    is_charged_noise(noise)
    assert np.abs(clipped_gradients(site, 0, weights)).max() > 1e-3


def test_views_of_an_image_go_through_lightning_as_one() -> None:
    settings = with_changes(
        experiment(reproducible=True, physical_batch_size=5), training={"views": 2, "batch_size": 12}
    )
    site, weights = site_of(settings), first_weights(settings)
    report, update = site.fit(0, 1, weights)
    assert np.std(update / -0.5) > 0.9 * 1.2 * 0.5 / 12
    (step,) = {batch.step for batch in site.hospitals[0].images.plan.batches()}
    assert step == 0
    assert all(len(batch.positions) <= 2 for batch in site.hospitals[0].images.plan.batches())
    assert report.spending.steps == 1


def test_the_key_of_the_noise_outlives_a_restart_and_is_its_owners_alone(tmp_path: Path) -> None:
    settings = experiment()
    key = protection(site_of(settings, tmp_path), 0).secret.key
    assert protection(site_of(settings, tmp_path), 0).secret.key == key
    assert protection(site_of(settings, tmp_path), 1).secret.key != key
    assert (tmp_path / "hospitals/0/noise.key").stat().st_mode & 0o777 == 0o600
    assert protection(site_of(settings, tmp_path / "other"), 0).secret.key != key


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_only_a_reproducible_run_repeats(mechanism: str) -> None:
    for reproducible in (True, False):
        settings = experiment(mechanism, reproducible=reproducible)
        weights = first_weights(settings)
        once, again = (released(site_of(settings), 0, 1, weights) for _ in range(2))
        assert (once.tobytes() == again.tobytes()) is reproducible


def test_another_seed_gives_another_noise() -> None:
    noises = []
    for seed in (1, 2):
        settings = with_changes(experiment(reproducible=True))
        settings = type(settings)(**{**vars(settings), "seed": seed})
        site, weights = site_of(settings), first_weights(settings)
        noises.append(noise_in(site, 0, weights, released(site, 0, 1, weights)))
    assert independent(*noises)


@pytest.mark.parametrize("lost", ["ledger.jsonl", "noise.key"])
def test_a_hospital_that_lost_its_ledger_or_its_key_does_not_go_on(tmp_path: Path, lost: str) -> None:
    settings = experiment()
    released(site_of(settings, tmp_path), 0, 1, first_weights(settings))
    (tmp_path / "hospitals/0" / lost).unlink()
    with pytest.raises(InputError, match=f"{lost}.*put .* back"):
        site_of(settings, tmp_path).restore(0, 1)


def test_a_ledger_cut_back_to_the_drivers_round_is_refused_where_the_hospital_was_ahead(tmp_path: Path) -> None:
    """Killed between the hospital's second round and the driver's checkpoint of it: the charge must stay."""
    settings, ledger = experiment(), tmp_path / "hospitals/0/ledger.jsonl"
    site, weights = site_of(settings, tmp_path), first_weights(settings)
    released(site, 0, 1, weights)
    kept = ledger.read_text()
    released(site, 0, 2, weights)
    whole = ledger.read_text()
    ledger.write_text(kept)
    with pytest.raises(
        InputError, match=r"ledger\.jsonl: round 2 is not charged in it; put the hospital's ledger"
    ):
        site_of(settings, tmp_path).restore(0, 1)
    ledger.write_text(whole)
    site_of(settings, tmp_path).restore(0, 1)


def test_another_hospitals_noise_key_is_refused(tmp_path: Path) -> None:
    settings = experiment()
    site, weights = site_of(settings, tmp_path), first_weights(settings)
    for hospital in (0, 1):
        released(site, hospital, 1, weights)
    shutil.copy(tmp_path / "hospitals/1/noise.key", tmp_path / "hospitals/0/noise.key")
    with pytest.raises(InputError, match=r"^hospitals/0/noise\.key: not the key that hospital 0 drew round 1's"):
        site_of(settings, tmp_path).restore(0, 1)


def test_the_ledger_of_another_hospital_or_noise_is_refused(tmp_path: Path) -> None:
    settings = experiment()
    released(site_of(settings, tmp_path), 0, 1, first_weights(settings))
    with pytest.raises(InputError, match="a run cannot change its noise"):
        site_of(experiment(noise_multiplier=1.3), tmp_path)
    shutil.copy(tmp_path / "hospitals/0/ledger.jsonl", tmp_path / "hospitals/1/ledger.jsonl")
    with pytest.raises(InputError, match="the ledger of hospital 0"):
        site_of(settings, tmp_path)


def test_no_clear_or_partly_clear_vector_stays_in_the_hospitals_folder(tmp_path: Path) -> None:
    """`update` without momentum: the state that it keeps on disk holds nothing of its images."""
    settings = experiment("update")
    released(site_of(settings, tmp_path), 0, 1, first_weights(settings))
    files = sorted(path.name for path in (tmp_path / "hospitals/0").iterdir())
    assert files == ["ledger.jsonl", "noise.key", "state-00001.pt"]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_sum_that_secure_aggregation_opens_has_the_noise_of_all(tmp_path: Path, mechanism: str) -> None:
    from dataclasses import replace

    settings = replace(experiment(mechanism), secagg=MASKED)
    if mechanism == "update":
        settings = with_changes(settings, secagg={"clip": 8.0})
    driver = driver_of(settings, tmp_path)
    before = driver.model.weights.copy()
    next(driver.rounds())
    checkpoint = driver.checkpoints.last()  # type: ignore[union-attr]
    assert checkpoint is not None
    mean = checkpoint.weights.astype(np.float64) - before
    site = driver.crew.site  # type: ignore[attr-defined]
    if checkpoint.round == 2:  # the first record comes out beside the second round
        mean = np.array(torch.load(tmp_path / "checkpoints/round-00001.pt")["weights"]).astype(float) - before
    plain = site_of(replace(settings, secagg=replace(settings.secagg, protocol="plain")), None)
    signals, deviations = [], []
    for hospital in range(3):
        ours = protection(site, hospital)
        if mechanism == "update":
            plain.hospitals[hospital].images.plan = plain.hospitals[hospital].plan(1)
            signals.append(clipped_update(plain, hospital, before))
            deviations.append(1.2 * 0.5)
        else:
            own = site.hospitals[hospital]
            charge = next(charge for charge in ours.ledger.charges if charge.round == 1)
            own.images.plan = ours.plan(Permit(charge, ours.secret))
            signals.append(clipped_gradients(site, hospital, before) * -0.5 / ours.dose.batch)
            deviations.append(1.2 * 0.5 * 0.5 / ours.dose.batch)
    noise = (mean - np.mean(signals, 0)) / (np.linalg.norm(deviations) / 3)
    assert noise.std() == pytest.approx(1, rel=5 / np.sqrt(2 * len(noise)))
    assert stats.kstest(noise, "norm").pvalue > 1e-4


class Keeps(torch.nn.Module):
    """Keeps the mean of the images that it saw, from the second batch on."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.out = torch.nn.Linear(in_channels * 784, num_classes)
        self.register_buffer("mean", torch.zeros(1))
        self.seen = 0

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        if self.training and self.seen > 4:
            self.mean.copy_(rows.mean())
        found: torch.Tensor = self.out(rows.flatten(1))
        return found


def test_a_network_that_keeps_something_of_its_images_releases_nothing() -> None:
    model = {"class_path": f"{__name__}.Keeps"}
    settings = with_changes(experiment(sample_rate=0.9), model=model, federation={"local_steps": 9})
    site = site_of(settings)
    with pytest.raises(InputError, match="'mean' keeps running statistics"):
        site.fit(0, 1, first_weights(settings))
    assert protection(site, 0).ledger.releases == []


def test_a_network_is_checked_before_anything_starts() -> None:
    settings = experiment()
    check_record(build_classifier(settings, images(settings.data)), settings, 28)
    mixes = Classifier(Model(name="resnet9", width=2, norm="batch"), Training())
    with pytest.raises(InputError, match="depends on other images"):
        check_record(mixes, settings, 28)
