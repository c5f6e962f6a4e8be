import logging
import warnings
from dataclasses import asdict
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from lightning_fed.experiment import Model, Training
from lightning_fed.models.classifier import Classifier, normalise
from lightning_fed.models.export import save_model
from lightning_fed.models.vector import to_vector

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")  # Lightning 2.6 under torch 2.15

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (45, 8, 8, 3), dtype=np.uint8)
LABELS = GENERATOR.integers(0, 8, 45)


def small(**changes: object) -> Classifier:
    return Classifier(Model(width=4), Training(**changes), seed=3)


def trainer(folder: Path, **options: object) -> pl.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )


def loader(batch_size: int) -> DataLoader:
    return DataLoader(TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(LABELS)), batch_size)


def test_normalising_maps_bytes_to_minus_one_and_one_and_moves_the_channels_forward() -> None:
    images = torch.zeros(2, 4, 5, 3, dtype=torch.uint8)
    images[0, 1, 2, 0] = 255
    images[1, 3, 4, 2] = 51
    found = normalise(images)
    assert found.shape == (2, 3, 4, 5)
    assert found[0, 0, 1, 2] == 1
    assert found[1, 2, 3, 4] == pytest.approx(-0.6)
    assert found.sum() == pytest.approx(-found.numel() + 2 + 0.4, rel=1e-4)
    assert images[0, 1, 2, 0] == 255, "the shared pixels stay as they were"


def test_settings_and_their_plain_values_build_the_same_network() -> None:
    plain = Classifier(asdict(Model(width=4)), asdict(Training()), seed=3)
    assert np.array_equal(to_vector(plain.network), to_vector(small().network))


def test_the_seed_decides_the_first_weights() -> None:
    other = Classifier(Model(width=4), Training(), seed=4)
    assert not np.array_equal(to_vector(other.network), to_vector(small().network))


def test_one_optimizer_lasts_the_modules_whole_life() -> None:
    classifier = small()
    assert classifier.configure_optimizers() is classifier.configure_optimizers()


def test_the_training_loss_is_the_exact_mean_over_images_of_unequal_batches() -> None:
    classifier = small()
    classifier.on_train_start()
    sizes, losses = (16, 3), []
    for start, size in ((0, 16), (16, 3)):
        batch = torch.from_numpy(IMAGES[start : start + size]), torch.from_numpy(LABELS[start : start + size])
        losses.append(float(classifier.training_step(batch, 0).detach()))
    assert classifier.examples == 19
    assert classifier.loss_sum / classifier.examples == pytest.approx(np.average(losses, weights=sizes), rel=1e-6)
    classifier.on_train_start()
    assert (classifier.loss_sum, classifier.examples) == (0, 0)


@settings(max_examples=15)
@given(batch_size=st.integers(1, 20), shard_batches=st.integers(1, 4))
def test_shards_at_multiples_of_the_batch_give_the_wholes_probabilities_to_the_bit(
    batch_size: int, shard_batches: int
) -> None:
    classifier = small()
    whole = classifier.probabilities(IMAGES, batch_size)
    step = batch_size * shard_batches
    shards = [classifier.probabilities(IMAGES[start : start + step], batch_size) for start in range(0, 45, step)]
    assert torch.equal(torch.cat(shards), whole)


def test_probabilities_are_the_softmax_of_the_logits_and_need_no_writable_pixels() -> None:
    classifier = small()
    images = IMAGES.copy()
    images.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classifier.probabilities(images, 7)
    assert found.shape == (45, 8)
    assert found.dtype == torch.float32
    with torch.no_grad():
        wanted = classifier(torch.from_numpy(IMAGES)).softmax(1)
    assert torch.allclose(found, wanted, atol=1e-6)


def test_evaluate_scores_the_present_weights() -> None:
    classifier = small()
    scores = classifier.evaluate(IMAGES, LABELS, 16)
    guesses = classifier.probabilities(IMAGES, 16).argmax(1).numpy()
    assert scores.accuracy == pytest.approx((guesses == LABELS).mean())


def test_batch_norms_running_statistics_are_used_and_kept_when_evaluating() -> None:
    classifier = Classifier(Model(name="resnet9", width=4, norm="batch"), Training())
    classifier.train()
    before = to_vector(classifier.network)
    whole = classifier.probabilities(IMAGES, 45)
    single = classifier.probabilities(IMAGES[:1], 1)
    assert np.array_equal(to_vector(classifier.network), before)
    assert torch.allclose(whole[:1], single, atol=1e-5)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_plain_lightning_trainer_logs_the_scores(tmp_path: Path, split: str) -> None:
    classifier = small()
    run = getattr(trainer(tmp_path), {"validation": "validate", "test": "test"}[split])
    (logged,) = run(classifier, loader(16), verbose=False)
    scores = classifier.evaluate(IMAGES, LABELS, 16)
    assert logged == {
        f"{split}/accuracy": pytest.approx(scores.accuracy),
        f"{split}/balanced_accuracy": pytest.approx(scores.balanced_accuracy),
        f"{split}/auroc": pytest.approx(scores.auroc),
        f"{split}/loss": pytest.approx(scores.loss, rel=1e-5),
    }


def test_a_plain_lightning_trainer_fits_and_validates_it(tmp_path: Path) -> None:
    classifier = small(lr=0.01)
    before = classifier.evaluate(IMAGES, LABELS, 45).loss
    classifier.train()
    found = trainer(tmp_path, check_val_every_n_epoch=1)
    found.fit(classifier, loader(5), loader(16))
    assert found.callback_metrics["validation/loss"] < before


@pytest.mark.parametrize(
    "model",
    [Model(width=4), Model(name="resnet9", width=4, norm="batch"), Model(name="resnet18", width=2)],
    ids=lambda model: model.name,
)
def test_a_saved_model_loads_as_plain_weights_with_the_same_outputs(tmp_path: Path, model: Model) -> None:
    classifier = Classifier(model, Training(optimizer="SGD", momentum=0.5), in_channels=3, num_classes=5, seed=9)
    classifier.train()
    with torch.no_grad():
        classifier(torch.from_numpy(IMAGES))  # moves batch norm's statistics away from their first values
        for parameter in classifier.parameters():
            parameter.add_(0.01)
    save_model(classifier, tmp_path / "model.ckpt")
    loaded = Classifier.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True, map_location="cpu")
    assert torch.equal(loaded.probabilities(IMAGES, 16), classifier.probabilities(IMAGES, 16))
    assert loaded.training_settings == classifier.training_settings
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]


def test_a_trained_model_may_answer_with_the_mean_over_an_images_symmetries() -> None:
    plain = small()
    averaging = Classifier(Model(width=4, test_time_augmentation=True), Training(), seed=3)
    turned = [np.rot90(IMAGES, turns, axes=(1, 2)) for turns in range(4)]
    views = [view for one in turned for view in (one, one[:, :, ::-1])]
    plain.eval(), averaging.eval()
    with torch.no_grad():
        logits = torch.stack([plain(torch.from_numpy(view.copy())) for view in views])
        found = averaging(torch.from_numpy(IMAGES))
        assert not torch.allclose(logits[0], logits[5], atol=1e-3), "the network itself tells them apart"
        torch.testing.assert_close(found, logits.mean(0), atol=1e-5, rtol=1e-4)
    one, other = (averaging.probabilities(np.ascontiguousarray(view), 16) for view in (views[0], views[5]))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_while_it_trains_each_image_is_seen_as_it_is() -> None:
    plain, averaging = small(), Classifier(Model(width=4, test_time_augmentation=True), Training(), seed=3)
    images = torch.from_numpy(IMAGES)
    assert torch.equal(plain.train()(images), averaging.train()(images))
