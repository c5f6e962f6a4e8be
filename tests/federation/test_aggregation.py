"""The protocols over the plain classes, without Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_fed.data.images import ImageData
from lightning_fed.data.load import load_images
from lightning_fed.errors import DivergedError, FederationError, InputError
from lightning_fed.experiment import (
    Data,
    Dropout,
    Experiment,
    Faults,
    Federation,
    Loss,
    Model,
    Privacy,
    Ray,
    SecAgg,
    Training,
)
from lightning_fed.federation.aggregation import SecAggPlus
from lightning_fed.federation.assembly import open_crew
from lightning_fed.federation.checkpoint import Checkpoints
from lightning_fed.federation.driver import Driver
from lightning_fed.federation.enrolment import encoding_of, enrol, save_identities
from lightning_fed.federation.roster import make_roster
from lightning_fed.federation.site import build_classifier
from lightning_fed.federation.strategy import GlobalModel, mean_update
from lightning_fed.secagg.keys import Identity
from lightning_fed.tracking.records import RoundRecord
from tests.federation.secrecy import arrays, numbers, shows

STAGES = ("before_keys", "after_keys", "after_shares", "after_masked_input", "at_unmasking")
SMALL = Experiment(
    data=Data(images=120, partition="quantity", min_images=4, validation=0.0),
    model=Model(width=2),
    training=Training(batch_size=16),
    federation=Federation(hospitals=5, rounds=2, local_epochs=1),
    privacy=Privacy(reproducible=True),
    secagg=SecAgg(protocol="secagg_plus", bits=24),
    ray=Ray(enabled=False),
)


def open_driver(experiment: Experiment, output: Path, resume: bool = False) -> Driver:
    data: ImageData = load_images(experiment.data)
    roster = make_roster(experiment, data)
    if not resume:
        experiment, identities = enrol(experiment, roster)
        save_identities(output, identities)
    model = GlobalModel.first(experiment, build_classifier(experiment, data).network)
    crew = open_crew(experiment, data, roster, output)
    driver = Driver(experiment, data, roster, model, crew, Checkpoints(output))
    if resume:
        driver.resume()
    return driver


def with_losses(experiment: Experiment, *losses: tuple[int, int, str]) -> Experiment:
    listed = [Loss(round, hospital, stage) for round, hospital, stage in losses]  # type: ignore[arg-type]
    return replace(experiment, faults=Faults(dropout=Dropout(losses=listed)))


def under(experiment: Experiment, protocol: str, **changes: Any) -> Experiment:
    return replace(experiment, secagg=replace(experiment.secagg, protocol=protocol, **changes))


@pytest.mark.parametrize("protocol", ["secagg_plus", "additive"])
def test_one_round_differs_from_plain_by_one_quantisation_step_at_most(tmp_path: Path, protocol: str) -> None:
    experiment = replace(SMALL, federation=replace(SMALL.federation, rounds=1))
    masked = open_driver(under(experiment, protocol), tmp_path / "masked")
    plain = open_driver(under(experiment, "plain"), tmp_path / "plain")
    start = plain.model.weights.copy()
    for driver in (masked, plain):
        list(driver.rounds())
    sizes = [len(member.train) for member in plain.roster.members]
    step = encoding_of(masked.experiment).mean_step(len(sizes), sum(sizes))
    difference = np.abs(masked.model.weights - plain.model.weights)
    assert 0 < difference.max() <= step + np.spacing(np.abs(start).max())
    assert np.abs(plain.model.weights - start).max() > 100 * step


def test_a_lost_hospital_s_update_is_not_in_the_mean_and_all_others_are(tmp_path: Path) -> None:
    one = replace(SMALL, federation=replace(SMALL.federation, rounds=1))
    driver = open_driver(with_losses(one, (1, 3, "after_shares")), tmp_path / "masked")
    before = driver.model.weights.copy()
    (record,) = driver.rounds()
    twin = open_driver(under(one, "plain"), tmp_path / "plain").crew.site  # type: ignore[attr-defined]
    sent = [twin.fit(hospital, 1, before) for hospital in (0, 1, 2, 4)]
    mean = mean_update((report.images, update) for report, update in sent)
    step = encoding_of(driver.experiment).mean_step(4, sum(report.images for report, _ in sent))
    assert np.abs(driver.model.weights - before - mean).max() <= step + 1e-7
    assert record.trained.counted == (0, 1, 2, 4)
    assert [report.hospital for report in record.trained.reports] == [0, 1, 2, 4]


@pytest.mark.parametrize("stage", STAGES)
def test_a_dropout_at_each_stage_is_told_and_the_round_goes_on(tmp_path: Path, stage: str) -> None:
    driver = open_driver(with_losses(SMALL, (1, 2, stage)), tmp_path)
    first, second = driver.rounds()
    assert [(lost.hospital, lost.stage) for lost in first.trained.dropped] == [(2, stage)]
    sent = stage in ("after_masked_input", "at_unmasking")
    assert (2 in first.trained.counted) == sent
    assert second.trained.dropped == ()
    assert second.trained.counted == (0, 1, 2, 3, 4)


def test_a_round_that_cannot_be_opened_leaves_the_model_as_it_was_and_the_next_goes_on(tmp_path: Path) -> None:
    driver = open_driver(with_losses(SMALL, (1, 0, "at_unmasking"), (1, 1, "after_masked_input")), tmp_path)
    before = driver.model.weights.copy()
    rounds = driver.rounds()
    record = next(rounds)
    assert record.trained.failed is not None
    assert record.trained.counted == ()
    assert np.array_equal(Checkpoints(tmp_path).last().weights, before)  # type: ignore[union-attr]
    (later,) = rounds
    assert later.trained.failed is None
    assert not np.array_equal(driver.model.weights, before)


@pytest.mark.parametrize("allowed", [0, 1])
def test_more_failed_rounds_in_a_row_than_allowed_end_the_run(tmp_path: Path, allowed: int) -> None:
    hopeless = replace(
        SMALL,
        federation=replace(SMALL.federation, rounds=5),
        faults=Faults(dropout=Dropout(rate=1.0), max_failed_rounds=allowed),
    )
    driver = open_driver(hopeless, tmp_path)
    before = driver.model.weights.copy()
    with pytest.raises(FederationError, match=rf"round {allowed + 1} gave no new model \(.*max_failed_rounds"):
        list(driver.rounds())
    checkpoint = Checkpoints(tmp_path).last()
    assert checkpoint is not None
    assert checkpoint.round == allowed + 1
    assert np.array_equal(checkpoint.weights, before)


def test_one_set_up_serves_several_rounds_and_gives_the_same_weights(tmp_path: Path) -> None:
    three = replace(SMALL, federation=replace(SMALL.federation, rounds=3))
    three = with_losses(three, (2, 1, "after_shares"))
    drivers = [
        open_driver(under(three, "secagg_plus", rounds_per_setup=rounds), tmp_path / str(rounds))
        for rounds in (1, 2)
    ]
    sessions: list[list[bytes]] = [[], []]
    for driver, seen in zip(drivers, sessions, strict=True):
        aggregation = driver.aggregation
        assert isinstance(aggregation, SecAggPlus)
        driver.on_close = lambda _, a=aggregation, seen=seen: seen.append(a.session.opening.session)  # type: ignore
        list(driver.rounds())
    assert [len(set(seen)) for seen in sessions] == [3, 2]
    assert np.array_equal(drivers[0].model.weights, drivers[1].model.weights)


def test_who_misses_the_set_up_is_out_for_all_of_its_rounds(tmp_path: Path) -> None:
    experiment = under(with_losses(SMALL, (1, 4, "before_keys")), "secagg_plus", rounds_per_setup=2)
    told = [record.trained for record in open_driver(experiment, tmp_path).rounds()]
    assert [trained.counted for trained in told] == [(0, 1, 2, 3)] * 2
    lost = [[(one.hospital, one.stage) for one in trained.dropped] for trained in told]
    assert lost == [[(4, "before_keys")]] * 2


def test_who_lost_the_keys_of_a_set_up_is_back_before_its_end_where_too_few_are_left(tmp_path: Path) -> None:
    """Three of five processes come back without keys: two could open no sum for the rest of the block."""
    experiment = under(SMALL, "secagg_plus", rounds_per_setup=5)
    driver = open_driver(replace(experiment, federation=replace(SMALL.federation, rounds=5)), tmp_path)
    driver.on_close = lambda trained: driver.aggregation.absent([2, 3, 4]) if trained.round == 2 else None
    told = [(record.trained.failed is None, record.trained.counted) for record in driver.rounds()]
    everybody = (0, 1, 2, 3, 4)
    assert told[:2] == [(True, everybody)] * 2
    assert not told[2][0], "the keys of the block's session are those of two alone"
    assert told[3:] == [(True, everybody)] * 2


@pytest.mark.parametrize("protocol", ["secagg_plus", "additive", "plain"])
def test_a_resumed_run_with_dropouts_ends_in_the_same_weights(tmp_path: Path, protocol: str) -> None:
    experiment = replace(
        under(SMALL, protocol),
        federation=replace(SMALL.federation, rounds=4),
        faults=Faults(dropout=Dropout(rate=0.2, stage="before_keys")),
    )
    alone = open_driver(experiment, tmp_path / "alone")
    whole = list(alone.rounds())
    assert any(record.trained.dropped for record in whole)
    cut = open_driver(experiment, tmp_path / "cut")
    rounds = cut.rounds()
    next(rounds), next(rounds)  # two checkpoints are written, the third round's training is over
    resumed = open_driver(cut.experiment, tmp_path / "cut", resume=True)
    rest = list(resumed.rounds())
    assert rest[-1].round == 4
    assert np.array_equal(resumed.model.weights, alone.model.weights)


def test_a_run_that_is_resumed_within_a_set_up_s_rounds_ends_in_the_same_weights(tmp_path: Path) -> None:
    experiment = under(with_losses(SMALL, (1, 4, "before_keys")), "secagg_plus", rounds_per_setup=4)
    experiment = replace(experiment, federation=replace(SMALL.federation, rounds=6))
    alone = open_driver(experiment, tmp_path / "alone")
    counted = [record.trained.counted for record in alone.rounds()]
    assert counted == [(0, 1, 2, 3)] * 4 + [(0, 1, 2, 3, 4)] * 2
    cut = open_driver(experiment, tmp_path / "cut")
    rounds = cut.rounds()
    next(rounds), next(rounds)
    resumed = open_driver(cut.experiment, tmp_path / "cut", resume=True)
    assert [record.trained.counted for record in resumed.rounds()] == counted[1:]
    assert np.array_equal(resumed.model.weights, alone.model.weights)


def test_a_run_without_any_new_model_does_not_end_as_completed(tmp_path: Path) -> None:
    hopeless = replace(SMALL, faults=Faults(dropout=Dropout(rate=1.0), max_failed_rounds=5))
    with pytest.raises(FederationError, match="no round of 2 gave a new model"):
        list(open_driver(hopeless, tmp_path).rounds())
    assert Checkpoints(tmp_path).rounds() == [1, 2]


def test_a_note_that_cannot_be_written_ends_the_run_before_anything_is_answered(tmp_path: Path) -> None:
    driver = open_driver(SMALL, tmp_path)
    notes = tmp_path / "hospitals" / "2" / "answered.txt"
    notes.unlink()
    notes.mkdir()
    with pytest.raises(FederationError, match=r"hospitals/2/answered\.txt: cannot be written"):
        list(driver.rounds())


def test_a_round_that_was_opened_and_lost_its_checkpoint_is_not_opened_again(tmp_path: Path) -> None:
    """Killed between the opening and the checkpoint: hospitals refuse, and the run goes on with the next round."""
    driver = open_driver(SMALL, tmp_path)

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    assert driver.checkpoints is not None
    driver.checkpoints.store = killed  # type: ignore[method-assign, assignment]
    with pytest.raises(Killed):
        list(driver.rounds())
    resumed = open_driver(driver.experiment, tmp_path, resume=True)
    first, second = resumed.rounds()
    assert first.trained.failed is not None
    assert len(first.trained.refusals) == 5
    assert "round 1 was opened before" in first.trained.refusals[0]
    assert second.trained.failed is None


def test_additive_sharing_does_without_a_hospital_before_it_shares_and_not_after(tmp_path: Path) -> None:
    additive = under(SMALL, "additive")
    for stage, works in (("before_keys", True), ("after_shares", False)):
        driver = open_driver(with_losses(additive, (1, 1, stage)), tmp_path / stage)
        first = next(iter(driver.rounds()))
        assert (first.trained.failed is None) == works
        assert first.trained.counted == ((0, 2, 3, 4) if works else ())


def test_a_hospital_larger_than_a_vector_can_weigh_is_refused() -> None:
    experiment = under(SMALL, "secagg_plus", max_weight=10)
    with pytest.raises(
        InputError, match=r"secagg\.max_weight is 10, but hospital \d counts \d+ in the mean; raise it"
    ):
        enrol(experiment, make_roster(experiment, load_images(experiment.data)))


def test_a_run_keeps_the_keys_that_it_made_for_itself_and_another_run_makes_its_own(tmp_path: Path) -> None:
    roster = make_roster(SMALL, load_images(SMALL.data))
    first, made = enrol(SMALL, roster)
    save_identities(tmp_path, made)
    again, none = enrol(SMALL, roster, tmp_path)
    assert (again, none) == (first, {})
    assert len(enrol(SMALL, roster, tmp_path / "killed before it had any")[1]) == 5
    assert set(enrol(SMALL, roster)[0].secagg.identities).isdisjoint(first.secagg.identities)


def test_a_run_killed_among_its_keys_goes_on_with_new_ones(tmp_path: Path) -> None:
    roster = make_roster(SMALL, load_images(SMALL.data))
    _, lost = enrol(SMALL, roster)
    save_identities(tmp_path, lost)
    (tmp_path / "identities.txt").unlink()
    settled, made = enrol(SMALL, roster, tmp_path)
    save_identities(tmp_path, made)
    assert enrol(SMALL, roster, tmp_path) == (settled, {})
    for hospital, identity in made.items():
        kept = Identity.load(tmp_path / "hospitals" / str(hospital) / "identity.key")
        assert kept.public == identity.public != lost[hospital].public


@pytest.mark.parametrize("text", [None, "", "0 zz\n", "1 " + "ab" * 32 + "\n", "\xff\n"])
def test_a_run_whose_public_keys_are_gone_or_damaged_is_refused(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "checkpoints").mkdir()
    if text is not None:
        (tmp_path / "identities.txt").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"identities"):
        enrol(SMALL, make_roster(SMALL, load_images(SMALL.data)), tmp_path)


def test_a_sum_that_could_wrap_is_refused_with_three_remedies() -> None:
    experiment = under(SMALL, "secagg_plus", max_weight=2**31)
    with pytest.raises(InputError, match=r"could wrap .* secagg\.bits .* secagg\.max_weight .*participation"):
        enrol(experiment, make_roster(experiment, load_images(experiment.data)))


def test_an_update_that_diverged_is_never_sent(tmp_path: Path) -> None:
    wild = replace(SMALL, training=replace(SMALL.training, optimizer="SGD", lr=1e30, warmup_rounds=0.0))
    with pytest.raises(DivergedError, match=r"an update is not finite any more; lower training\.lr"):
        list(open_driver(wild, tmp_path).rounds())


def test_what_is_clipped_is_counted(tmp_path: Path) -> None:
    tight = under(SMALL, "secagg_plus", clip=1e-4)
    record = next(iter(open_driver(tight, tmp_path).rounds()))
    assert all(report.saturated > 100 for report in record.trained.reports)


@pytest.mark.parametrize("damage", ["missing", "short", "another"])
def test_a_signing_key_that_is_not_the_pinned_one_is_refused(tmp_path: Path, damage: str) -> None:
    driver = open_driver(SMALL, tmp_path)
    path = tmp_path / "hospitals" / "3" / "identity.key"
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    if damage != "missing":
        path.write_bytes(bytes(31 if damage == "short" else 32))
    with pytest.raises(InputError, match=r"hospitals/3/identity\.key: "):
        open_driver(driver.experiment, tmp_path, resume=True)


def test_promise_1_no_update_and_no_count_passes_between_a_hospital_and_the_driver(tmp_path: Path) -> None:
    driver = open_driver(with_losses(SMALL, (2, 1, "after_masked_input")), tmp_path)
    site = driver.crew.site  # type: ignore[attr-defined]
    passed: list[tuple[str, Any]] = []
    updates: list[Any] = []
    for method in ("fit", "secagg"):
        setattr(site, method, noting(passed, method, getattr(site, method)))
    for hospital in site.hospitals.values():
        hospital.take_update = keeping(updates, hospital.take_update)
    list(driver.rounds())
    encoding = encoding_of(driver.experiment)
    assert len(updates) == 10
    masked = [array for method, value in passed if method == "fit" for array in arrays(value)]
    assert sum(array.dtype == np.uint8 for array in masked) == 10
    for update in updates:
        assert shows(update, (value for _, value in passed), encoding) == []
        assert shows(update, [update], encoding) == ["in clear"]
    protocol = [value for method, value in passed if method == "secagg"]
    assert len(protocol) > 100
    counts = {len(member.train) for member in driver.roster.members}
    assert counts.isdisjoint(number for value in protocol for number in numbers(value))


def test_the_test_of_promise_1_sees_an_update_whose_masks_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_fed.secagg.client.apply_masks", lambda vector, masks: None)
    driver = open_driver(replace(SMALL, federation=replace(SMALL.federation, rounds=1)), tmp_path)
    site = driver.crew.site  # type: ignore[attr-defined]
    passed: list[tuple[str, Any]] = []
    updates: list[Any] = []
    site.fit = noting(passed, "fit", site.fit)
    for hospital in site.hospitals.values():
        hospital.take_update = keeping(updates, hospital.take_update)
    with pytest.raises(FederationError, match="the sum is none of 5 hospitals' vectors"):
        list(driver.rounds())
    assert "unmasked" in shows(updates[0], (value for _, value in passed), encoding_of(driver.experiment))


def noting(passed: list[tuple[str, Any]], method: str, inner: Any) -> Any:
    """A method that notes what goes in and what comes out."""

    def wrapped(*arguments: Any) -> Any:
        result = inner(*arguments)
        passed.extend((method, value) for value in (*arguments, result))
        return result

    return wrapped


def keeping(updates: list[Any], take: Any) -> Any:
    """A `take_update` that keeps what it gives."""

    def wrapped() -> Any:
        updates.append(take())
        return updates[-1]

    return wrapped


def test_no_checkpoint_or_record_of_the_driver_holds_an_update(tmp_path: Path) -> None:
    driver = open_driver(SMALL, tmp_path)
    records: list[RoundRecord] = list(driver.rounds())
    checkpoint = Checkpoints(tmp_path).last()
    assert checkpoint is not None
    assert {array.shape for array in arrays(checkpoint)} == {driver.model.weights.shape}  # the new global weights
    assert not any(array.size > 8 for record in records for array in arrays(record))
    for path in (tmp_path / "hospitals").rglob("*"):
        if path.is_file() and path.suffix != ".pt":
            assert path.name in ("identity.key", "answered.txt")


@pytest.mark.slow
def test_over_a_run_masked_and_plain_differ_in_accuracy_by_no_more_than_chance(tmp_path: Path) -> None:
    """Three seeds: the mean paired difference lies within its 95 % confidence interval around none at all."""
    run = replace(
        SMALL,
        data=Data(images=1000, partition="dirichlet", min_images=4, validation=0.0),
        model=Model(width=4),
        federation=Federation(hospitals=5, rounds=6, local_epochs=2),
    )
    differences, accuracies = [], []
    for seed in (1, 2, 3):
        told = []
        for protocol in ("secagg_plus", "plain"):
            driver = open_driver(replace(under(run, protocol), seed=seed), tmp_path / f"{protocol}-{seed}")
            list(driver.rounds())
            told.append(driver.test().accuracy)
        differences.append(told[0] - told[1])
        accuracies += told
    assert min(accuracies) > 0.3  # eight classes: they did learn
    student_t = 4.303  # two degrees of freedom, 97.5 %
    half_width = student_t * np.std(differences, ddof=1) / np.sqrt(3)
    assert abs(np.mean(differences)) <= half_width or np.max(np.abs(differences)) < 0.005
