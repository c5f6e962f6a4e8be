import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_fed.errors import InputError
from lightning_fed.experiment import Model, Training
from lightning_fed.models.classifier import Batch, normalise
from lightning_fed.models.distillation import Distilling, Observed, head_of

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


def own_loss(
    learner: Observed, other: Observed, images: torch.Tensor, labels: torch.Tensor, both: Distilling
) -> None:
    """The student's side alone, written out with probabilities."""
    own, logits = learner(normalise(images))
    with torch.no_grad():
        others, answers = other(normalise(images))
        trust = functional.cross_entropy(logits, labels) + functional.cross_entropy(answers, labels)
    wanted, told = answers.softmax(1), logits.softmax(1)
    divergence = (wanted * (wanted.log() - told.log())).sum(1).mean()
    distance = ((both.projection(own) - others) ** 2).mean()
    (functional.cross_entropy(logits, labels) + (divergence + distance) / trust).backward()


def test_the_student_and_the_projection_learn_by_the_formula() -> None:
    images, labels = batch()
    whole, alone = pair(), pair()
    whole.training_step((images, labels), 0).backward()
    student, teacher = (Observed(net, "model") for net in (alone.network, alone.teacher.network))
    own_loss(student, teacher, images, labels, alone)
    for name in ("network", "projection"):
        for found, wanted in zip(gradients(getattr(whole, name)), gradients(getattr(alone, name)), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


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


def test_a_network_without_a_linear_layer_cannot_be_distilled() -> None:
    with pytest.raises(
        InputError, match=r"^model: federation\.strategy fedmic distils what goes into a last linear"
    ):
        head_of(nn.Conv2d(3, 8, 3), "model")
