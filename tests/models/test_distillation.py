import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_fed.errors import InputError
from lightning_fed.experiment import Model, Training
from lightning_fed.models.classifier import Batch, normalise
from lightning_fed.models.distillation import LONGEST_GRADIENT, Distilling, Observed

STUDENT, TEACHER = Model(width=2), Model(name="resnet9", width=4)
SLOW = Training(optimizer="SGD", lr=0.05, augment=False)


def pair(student: Model = STUDENT, teacher: Model = TEACHER, teacher_seed: int = 1) -> Distilling:
    return Distilling(student, SLOW, teacher, teacher_seed)


def batch(rows: int = 6) -> Batch:
    draws = np.random.default_rng(0)
    images = torch.from_numpy(draws.integers(0, 256, (rows, 16, 16, 3), dtype=np.uint8))
    return images, torch.from_numpy(draws.integers(0, 8, rows))


def gradients(module: nn.Module) -> list[torch.Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in module.parameters()]


def divergence(wanted: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    """Written out with probabilities, for logits."""
    share, other = wanted.softmax(1), told.softmax(1)
    return (share * (share.log() - other.log())).sum(1).mean()


def test_each_side_learns_by_the_formula() -> None:
    images, labels = batch()
    whole, alone = pair(), pair()
    whole.training_step((images, labels), 0).backward()
    student, teacher = (Observed(net, 8, "model") for net in (alone.network, alone.teacher.network))
    own, logits = student(normalise(images))
    others, answers = teacher(normalise(images))
    of_student, of_teacher = (functional.cross_entropy(told, labels) for told in (logits, answers))
    trust = 1 / (of_student + of_teacher).detach()
    projected = alone.projection(own)
    student_side = of_student + trust * (
        divergence(answers.detach(), logits) + ((projected - others.detach()) ** 2).mean()
    )
    teacher_side = of_teacher + trust * (
        divergence(logits.detach(), answers) + ((others - projected.detach()) ** 2).mean()
    )
    (student_side + teacher_side).backward()
    for name in ("network", "projection", "teacher"):
        for found, wanted in zip(gradients(getattr(whole, name)), gradients(getattr(alone, name)), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_no_parts_gradient_is_longer_than_stated_and_a_short_one_stays() -> None:
    both = pair()
    for parameter in both.network.parameters():
        parameter.grad = torch.full_like(parameter, 5.0)
    for parameter in both.projection.parameters():
        parameter.grad = torch.full_like(parameter, 1e-4)
    both.on_before_optimizer_step(both.configure_optimizers())
    norm = float(torch.cat([gradient.ravel() for gradient in gradients(both.network)]).norm())
    assert norm == pytest.approx(LONGEST_GRADIENT, rel=1e-4)
    assert all((gradient == 1e-4).all() for gradient in gradients(both.projection))


@pytest.mark.slow
def test_what_is_known_by_heart_stays_known() -> None:
    """Without the clipping the loss jumps back a hundredfold some time after both know the batch."""
    both = Distilling(Model(width=8), Training(lr=2e-3, augment=False), Model(name="resnet18", width=8), 1)
    images, labels = batch(32)
    optimizer, worst = both.configure_optimizers(), 0.0
    for step in range(450):
        optimizer.zero_grad()
        both.loss_sum.zero_()
        both.training_step((images, labels), step).backward()
        both.on_before_optimizer_step(optimizer)
        optimizer.step()
        if step >= 150:
            worst = max(worst, float(both.loss_sum) / 32)
    assert worst < 0.1


def test_neither_learns_through_the_other() -> None:
    """With labels and answers that the other cannot change, the two sides are two trainings."""
    images, labels = batch()
    one, other = pair(), pair()
    one.training_step((images, labels), 0).backward()
    other.network.requires_grad_(False)
    other.projection.requires_grad_(False)
    other.training_step((images, labels), 0).backward()
    for found, wanted in zip(gradients(one.teacher), gradients(other.teacher), strict=True):
        torch.testing.assert_close(found, wanted)
    assert any(gradient.any() for gradient in gradients(other.teacher))
    assert not any(gradient.any() for gradient in gradients(other.network))


def test_one_optimizer_moves_student_teacher_and_projection() -> None:
    both = pair()
    optimizer = both.configure_optimizers()
    assert both.configure_optimizers() is optimizer
    before = {name: value.clone() for name, value in both.state_dict().items()}
    both.training_step(batch(), 0).backward()
    optimizer.step()
    for part in ("network.", "teacher.", "projection."):
        moved = [not torch.equal(before[name], value) for name, value in both.state_dict().items() if part in name]
        assert any(moved)


def test_both_learn_a_batch_by_heart() -> None:
    both, (images, labels) = pair(), batch()
    for _ in range(150):
        both.configure_optimizers().zero_grad()
        both.training_step((images, labels), 0).backward()
        both.configure_optimizers().step()
    both.eval()
    assert (both(images).argmax(1) == labels).all()
    assert (both.teacher(images).argmax(1) == labels).all()


def test_the_teacher_starts_by_its_own_seed_and_the_student_by_the_federations() -> None:
    one, other = pair(teacher_seed=1), pair(teacher_seed=2)
    assert all(
        torch.equal(a, b) for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True)
    )
    assert not torch.equal(one.projection.weight, other.projection.weight)
    assert not torch.equal(next(one.teacher.parameters()), next(other.teacher.parameters()))


def test_what_stays_at_home_comes_back_whole() -> None:
    one, other = pair(teacher_seed=1), pair(teacher_seed=2)
    other.take_home(one.at_home())
    for name in ("teacher", "projection"):
        pairs = zip(
            getattr(one, name).state_dict().items(), getattr(other, name).state_dict().items(), strict=True
        )
        assert all(key == same and torch.equal(value, like) for (key, value), (same, like) in pairs)


class Ends(nn.Module):
    """A network whose last linear layer is not its answer, in some way."""

    def __init__(self, how: str, num_classes: int = 8) -> None:
        super().__init__()
        self.how, self.answer = how, nn.Linear(3, num_classes)
        self.last = nn.Linear(5, 5 if how == "another" else num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = images.flatten(2).transpose(1, 2)
        if self.how == "tokens":
            return self.last(tokens[..., :1].expand(-1, -1, 5)).mean(1)
        return self.answer(tokens.mean(1))


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (nn.Conv2d(3, 8, 3), "distils what goes into the last layer, a linear one that gives the 8 classes"),
        (Ends("another"), "distils what goes into the last layer, a linear one that gives the 8 classes"),
        (Ends("unused"), "last linear layer is not used on one vector of features for each image"),
        (Ends("tokens"), "last linear layer is not used on one vector of features for each image"),
    ],
)
def test_a_network_that_does_not_end_in_a_linear_layer_cannot_be_distilled(network: nn.Module, told: str) -> None:
    with pytest.raises(InputError, match=f"^model: .*{told}"):
        Observed(network, 8, "model")(torch.zeros(2, 3, 8, 8))


def test_an_unfit_teacher_is_named_by_its_own_key() -> None:
    with pytest.raises(
        InputError, match=r"^federation\.distillation\.teacher is 'resnet90': did you mean 'resnet"
    ):
        pair(teacher=Model(name="resnet90"))
