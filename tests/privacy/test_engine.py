"""DP-SGD as it is taken, step by step: what is clipped, what is added, what it is divided by, what is counted."""

from __future__ import annotations

import copy
import dataclasses

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.arguments import read_experiment
from lightning_fed.data.load import load_images
from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment, Training
from lightning_fed.federation.site import build_classifier
from lightning_fed.privacy.engine import RecordEngine
from lightning_fed.privacy.trial import refuse_unbounded
from tests.privacy import trainees
from tests.privacy.trainees import CLASSES, C, Trainee, flat, images, network, noise, one_by_one

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook")  # Opacus's own

ALL = ["one_pass", "hooks", "ghost", "functorch"]
WITH_VIEWS = ["one_pass", "hooks", "functorch"]
NOTHING = (torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64))


def noises(trainee: Trainee, batch: float = 5.0) -> Tensor:
    """What each step moved the weights by beyond the mean of clipped gradients (steps, parameters)."""
    return torch.stack(
        [noised - clipped / batch for noised, clipped in zip(trainee.noised, trainee.clipped, strict=True)]
    )


@pytest.mark.parametrize("clipping", ALL)
def test_each_steps_noise_has_the_charged_deviation_and_shape_and_is_its_own(clipping: str) -> None:
    """Promise 4."""
    trainee = Trainee.of(network(), clipping)
    for _ in range(6):
        trainee.step(images())
    found = noises(trainee).numpy()
    deviation = 1.3 * C / 5.0
    assert found.std() == pytest.approx(deviation, rel=5 / np.sqrt(2 * found.size))
    for step in found:
        assert abs(step.mean()) < 5 * deviation / np.sqrt(len(step))
        assert step.std() == pytest.approx(deviation, rel=5 / np.sqrt(2 * len(step)))
    assert stats.kstest(found.ravel() / deviation, "norm").pvalue > 1e-4
    correlations = np.corrcoef(found)[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(found.shape[1])


@pytest.mark.filterwarnings("ignore:privacy.clipping")
def test_every_parameter_is_noised_also_one_that_took_no_part() -> None:
    idle = network()
    idle.register_parameter("idle", nn.Parameter(torch.zeros(400)))
    trainee = Trainee.of(idle)
    trainee.step(images())
    assert float(idle.idle.grad.std()) == pytest.approx(1.3 * C / 5.0, rel=0.2)  # type: ignore[union-attr,operator]


@pytest.mark.parametrize("clipping", ALL)
def test_an_empty_batch_is_a_step_of_noise_alone_and_is_counted(clipping: str) -> None:
    trainee = Trainee.of(network(), clipping)
    before = flat(list(trainee.network.parameters()))
    assert not trainee.step(NOTHING).any()
    moved = before - flat(list(trainee.network.parameters()))
    assert float(moved.std()) == pytest.approx(1.3 * C / 5.0, rel=0.06)
    trainee.step(images())
    trainee.step(NOTHING)
    assert not trainee.clipped[-1].any()  # nothing is left over of the batch before
    assert trainee.engine.steps_accounted == 3
    assert trainee.engine.engine.accountant.history == [(1.3, 0.25, 3)]


@pytest.mark.parametrize("clipping", ALL)
@pytest.mark.parametrize("norm", [0.05, 100.0], ids=["all clipped", "none clipped"])
def test_the_clipped_sum_is_that_of_gradients_taken_one_by_one(clipping: str, norm: float) -> None:
    pixels, labels = images()
    wanted = one_by_one(network(), pixels, labels, most=norm).sum(0)
    found = Trainee.of(network(), clipping, norm=norm).step((pixels, labels))
    assert float((found - wanted).norm()) < 1e-4 * float(wanted.norm())


@pytest.mark.parametrize("clipping", WITH_VIEWS)
def test_views_of_an_image_are_one_example(clipping: str) -> None:
    pixels, labels = images(12)
    labels = labels[::3].repeat_interleave(3)
    wanted = one_by_one(network(), pixels, labels, views=3)
    assert len(wanted) == 4
    found = Trainee.of(network(), clipping, views=3).step((pixels, labels))
    assert float((found - wanted.sum(0)).norm()) < 1e-4 * float(wanted.sum(0).norm())


@pytest.mark.parametrize("clipping", ALL)
@pytest.mark.parametrize("cuts", [(4,), (1, 5, 11)])
def test_microbatches_are_one_step_with_one_noise_and_the_sum_of_all(clipping: str, cuts: tuple[int, ...]) -> None:
    pixels, labels = images()
    whole = Trainee.of(network(), clipping)
    whole.step((pixels, labels))
    split = Trainee.of(network(), clipping)
    parts = list(zip(pixels.tensor_split(cuts), labels.tensor_split(cuts), strict=True))
    for _ in range(2):
        split.step(*parts)
    assert len(split.noised) == split.engine.steps_accounted == 2
    torch.testing.assert_close(split.clipped[0], whole.clipped[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(noises(split)[:1], noises(whole), rtol=1e-3, atol=1e-6)
    again = one_by_one(network_after(whole), pixels, labels).sum(0)
    assert float((split.clipped[1] - again).norm()) < 1e-3 * float(again.norm())  # nothing of the first step in it


def network_after(trainee: Trainee) -> nn.Module:
    after = network()
    after.load_state_dict(trainee.network.state_dict())
    return after


def test_views_of_one_image_may_not_be_split_over_microbatches_unnoticed() -> None:
    trainee = Trainee.of(network(), "one_pass", views=3)
    pixels, labels = images(4)
    with pytest.raises(RuntimeError, match="rows"):
        trainee.step((pixels, labels))


@settings(max_examples=8)
@given(size=st.integers(1, 12))
def test_the_public_nominal_batch_divides_and_not_the_realised_one(size: int) -> None:
    trainee = Trainee.of(network(), dose=trainees.dose(multiplier=1e-9, batch=7.3))
    pixels, labels = images(size)
    trainee.step((pixels, labels))
    torch.testing.assert_close(trainee.noised[0], trainee.clipped[0] / 7.3, rtol=1e-5, atol=1e-8)


class Scaled(nn.Module):
    """A parameter of its own beside layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(3, 4, 3)
        self.scale = nn.Parameter(torch.full((4, 1, 1), 1.5))
        self.out = nn.Linear(4, CLASSES)

    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = self.out((self.conv(rows) * self.scale).square().mean((2, 3)))
        return found


class Shift(nn.Module):
    """A parameter of its own and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.full((4, 1, 1), 0.3))

    def forward(self, rows: Tensor) -> Tensor:
        return (rows + self.shift).square()


def shifted() -> nn.Module:
    torch.manual_seed(3)
    layers = (nn.Conv2d(3, 4, 3), Shift(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))
    return nn.Sequential(*layers)


class Twice(nn.Module):
    """A module used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first, self.same = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.out = nn.Linear(4, CLASSES)

    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = self.out(self.same(self.same(self.first(rows)).tanh()).square().mean((2, 3)))
        return found


MODELS = {
    "plain": network,
    "standardised": lambda: network(standardise=True),
    "norm after the sum": lambda: network(norm_after_sum=True),
    "a module twice": Twice,
    "a bare parameter": shifted,
    "a bare parameter beside layers": Scaled,
}


@pytest.mark.filterwarnings("ignore:privacy.clipping")
@pytest.mark.parametrize("clipping", WITH_VIEWS)
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_without_one_image_the_sum_moves_by_its_clipped_gradient(name: str, views: int, clipping: str) -> None:
    """Neighbours, by brute force on the raw parameters; the norm is small, so that most are clipped."""
    most = 0.05
    pixels, labels = images(4 * views)
    labels = labels[::views].repeat_interleave(views)
    trainee = Trainee.of(MODELS[name](), clipping, views, norm=most)
    wanted = one_by_one(MODELS[name](), pixels, labels, views, most)
    whole = trainee.step((pixels, labels))
    for left_out in range(4):
        stays = torch.arange(len(labels)) // views != left_out
        found = whole - Trainee.of(MODELS[name](), clipping, views, norm=most).step((pixels[stays], labels[stays]))
        assert float(found.norm()) <= most * (1 + 1e-4)
        assert float((found - wanted[left_out]).norm()) < 1e-3 * most


@pytest.mark.filterwarnings("ignore:privacy.clipping")
@pytest.mark.parametrize("name", MODELS)
def test_ghost_clipping_bounds_each_image_too(name: str) -> None:
    pixels, labels = images(4)
    found = Trainee.of(MODELS[name](), "ghost", norm=0.05).step((pixels, labels))
    wanted = one_by_one(MODELS[name](), pixels, labels, most=0.05).sum(0)
    assert float((found - wanted).norm()) < 1e-3 * 0.05


def test_a_layer_that_one_pass_does_not_know_is_told_and_goes_to_opacus() -> None:
    with pytest.warns(UserWarning, match="one_pass does not know 1 \\(Shift\\)"):
        assert Trainee.of(shifted()).engine.clipped.way == "hooks"


def batch_norm(affine: bool) -> nn.Module:
    conv = nn.Conv2d(3, 4, 3)
    return nn.Sequential(conv, nn.BatchNorm2d(4, affine=affine), nn.Flatten(), nn.Linear(144, CLASSES))


@pytest.mark.parametrize("clipping", ALL)
def test_batch_norm_is_refused_in_words(clipping: str) -> None:
    with pytest.raises(InputError, match="norm: group"):
        Trainee.of(batch_norm(affine=True), clipping)


class Centred(nn.Module):
    """Takes the batch's mean away."""

    def forward(self, rows: Tensor) -> Tensor:
        return rows - rows.mean(0, keepdim=True)


class Rolled(nn.Module):
    """Each row reads the next one's."""

    def forward(self, rows: Tensor) -> Tensor:
        return rows + rows.roll(1, 0)


class SecretlyFlipped(nn.Module):
    """The rows change places inside and back: what comes out tells nothing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(192, 8), nn.Linear(8, CLASSES)

    def forward(self, rows: Tensor) -> Tensor:
        return self.outside(self.inside(rows.flatten(1).flip(0)).flip(0))


class UsedOutside(nn.Module):
    """A weight that also works where no hook is."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, CLASSES)

    def forward(self, rows: Tensor) -> Tensor:
        flat = rows.flatten(1)
        return self.head(0.01 * flat) + torch.nn.functional.linear(flat, self.head.weight)


def ended(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(192, CLASSES)).train()


@pytest.mark.parametrize(
    "mixing",
    [ended(Centred()), ended(Rolled()), SecretlyFlipped(), ended(nn.BatchNorm2d(3, affine=False))],
    ids=["centred", "rolled", "flipped", "batch norm"],
)
@pytest.mark.parametrize("clipping", ALL)
def test_a_network_that_mixes_images_is_refused(mixing: nn.Module, clipping: str) -> None:
    with pytest.raises(InputError, match=r"model: "):
        refuse_unbounded(copy.deepcopy(mixing), images(3)[0], clipping)


class TwoInputs(nn.Module):
    """A layer that no way of clipping knows."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Bilinear(192, 192, CLASSES)

    def forward(self, rows: Tensor) -> Tensor:
        return self.both(rows.flatten(1), rows.flatten(1))


@pytest.mark.filterwarnings("ignore:privacy.clipping")
@pytest.mark.parametrize(("network", "clipping"), [(UsedOutside(), "one_pass"), (TwoInputs(), "one_pass")])
def test_a_network_that_a_way_of_clipping_cannot_take_is_one_line(network: nn.Module, clipping: str) -> None:
    with pytest.raises(InputError, match=r"^model: .*cannot take its images apart .*; use another clipping"):
        refuse_unbounded(copy.deepcopy(network), images(3)[0], clipping)


def test_ghost_clipping_of_a_weight_that_is_used_outside_its_layer_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"one image can move the clipped sum by more than privacy\.max_grad_norm"
    ):
        refuse_unbounded(UsedOutside(), images(3)[0], "ghost")


@pytest.mark.parametrize("layer", [nn.Identity(), nn.Dropout(0.5), nn.InstanceNorm2d(3), nn.GroupNorm(3, 3)])
@pytest.mark.parametrize("clipping", ALL)
def test_a_network_that_does_not_mix_is_not_refused(layer: nn.Module, clipping: str) -> None:
    refuse_unbounded(ended(copy.deepcopy(layer)), images(3)[0], clipping)


class Float32Only(nn.Module):
    """It mixes numbers of its own in, which are in float32."""

    def forward(self, rows: Tensor) -> Tensor:
        return functional.linear(rows.flatten(1), torch.ones(4, 192)) + self.own(rows.flatten(1))

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Linear(192, 4)


def test_a_network_that_is_not_for_float64_is_tried_in_float32() -> None:
    refuse_unbounded(Float32Only().train(), images(3)[0], "one_pass")
    with pytest.raises(InputError, match=r"one image can move the clipped sum"):
        refuse_unbounded(nn.Sequential(Rolled(), Float32Only()).train(), images(3)[0], "one_pass")


class Positions(nn.Module):
    """A linear layer over eight positions whose input lies far from zero, under gradients that cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(24, 24)
        self.last = nn.Linear(192, CLASSES)

    def forward(self, rows: Tensor) -> Tensor:
        seen = self.one(rows.flatten(1).unflatten(1, (8, 24)) + 1000)
        return self.last((seen - seen.mean(1, keepdim=True)).flatten(1))


def test_a_way_that_rounding_makes_too_long_is_refused_though_it_is_right_in_float64() -> None:
    with pytest.raises(InputError, match=r"one image can move the clipped sum"):
        refuse_unbounded(Positions().train(), images(3)[0], "ghost")
    refuse_unbounded(Positions().train(), images(3)[0], "one_pass")


class OnlyInFloat32(nn.Module):
    """It mixes its batch in the type in which it trains."""

    def forward(self, rows: Tensor) -> Tensor:
        return rows - rows.mean(0) if rows.dtype == torch.float32 else rows


def test_mixing_in_float32_alone_is_refused() -> None:
    with pytest.raises(InputError, match=r"one image can move the clipped sum"):
        refuse_unbounded(ended(OnlyInFloat32()), images(3)[0], "one_pass")


class Asserts(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        assert rows.dtype == torch.float32
        return rows


def test_a_network_that_asserts_its_type_is_tried_in_it() -> None:
    refuse_unbounded(ended(Asserts()), images(3)[0], "one_pass")


@pytest.mark.parametrize("clipping", ALL)
def test_a_rectifier_that_rounding_turns_is_no_mixing(clipping: str) -> None:
    """Of these weights, one image's gradient is .9 % of C longer beside two others than alone, in float32."""
    words = ["--model.width", "8", "--seed", "727266957", "--data.images", "160", "--federation.hospitals", "4"]
    experiment = read_experiment([*words, "--data.partition", "iid", "--data.min_images", "8"])
    own = build_classifier(experiment, load_images(experiment.data)).network.train()
    pictures = torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before = {name: value.clone() for name, value in own.state_dict().items()}
    refuse_unbounded(own, pictures, clipping)
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())


def test_running_statistics_of_images_are_refused_though_they_mix_nothing() -> None:
    keeps = nn.InstanceNorm2d(3, track_running_stats=True)
    with pytest.raises(InputError, match=r"model: "):
        refuse_unbounded(ended(keeps), images(3)[0], "one_pass")


def test_the_accountant_goes_on_from_what_was_charged_before() -> None:
    trainee = Trainee.of(network())
    trainee.step(images())
    trainee.engine.begin_round(noise(1), 40)
    trainee.step(images())
    trainee.step(images())
    assert trainee.engine.engine.accountant.history == [(1.3, 0.25, 42)]
    assert trainee.engine.engine.accountant.mechanism() == "prv"


def test_what_a_broken_off_round_left_behind_is_not_in_the_next() -> None:
    trainee = Trainee.of(network())
    pixels, labels = images()
    trainee.engine.before_batch(len(labels), last=False)
    trainee.engine.optimizer.step(lambda: trainee._closure(pixels, labels))  # the step's other images never come
    trainee.engine.before_batch(len(labels), last=False)
    trainee.engine.begin_round(noise(1), 0)
    assert not trainee.step(NOTHING).any()
    assert len(trainee.noised) == 1


def test_a_round_without_its_noise_is_not_trained() -> None:
    own = network()
    optimizer = torch.optim.SGD(own.parameters(), 1.0)
    engine = RecordEngine(own, optimizer, trainees.privacy(), trainees.dose())
    with pytest.raises(AssertionError, match="noise"):
        Trainee(own, engine).step(images())


@pytest.mark.parametrize("clipping", ALL)
def test_class_and_names_of_the_network_stay_as_they_were(clipping: str) -> None:
    before = network()
    trainee = Trainee.of(network(), clipping)
    trainee.step(images())
    assert type(trainee.network) is type(before)
    assert list(trainee.network.state_dict()) == list(before.state_dict())


def test_nothing_that_dp_sgd_breaks_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """`gradient_clip_val` does nothing there, accumulating breaks sampling, 16-bit scaling scales the noise."""
    names = {field.name for field in dataclasses.fields(Training)}
    assert not names & {"gradient_clip_val", "gradient_clip", "accumulate_grad_batches", "accumulate"}
    for precision in ("16-mixed", "16-true", "bf16-true", "16"):
        with pytest.raises(InputError, match=r"training\.precision"):
            Training(precision=precision)  # type: ignore[arg-type]
    made: list[dict[str, object]] = []

    class Watched(pl.Trainer):
        def __init__(self, **options: object) -> None:
            made.append(options)
            super().__init__(**options)  # type: ignore[arg-type]

    from tests.federation.test_hospital import experiment, first_weights, hospital

    monkeypatch.setattr("lightning_fed.federation.local_work.pl.Trainer", Watched)
    own = experiment()
    assert isinstance(own, Experiment)
    hospital(own).fit(1, first_weights(own))
    assert made
    assert not made[0].keys() & {"gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches"}


def test_diagnostics_say_what_was_clipped() -> None:
    trainee = Trainee.of(network(), norm=0.05)
    trainee.step(images())
    seen = trainee.engine.optimizer.diagnostics
    assert seen.clipped == 1.0
    assert seen.median_norm is not None
    assert seen.median_norm > 0.05
    ratio = trainee.clipped[0].norm() / (noises(trainee)[0] * 5.0).norm()
    assert seen.signal_to_noise == pytest.approx(float(ratio), rel=1e-3)
    fresh = Trainee.of(network()).engine.optimizer.diagnostics
    assert (fresh.clipped, fresh.median_norm, fresh.signal_to_noise) == (None, None, None)
