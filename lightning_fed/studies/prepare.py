"""From an experiment to what its federation needs: images, network, hospitals and their noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import torch
import yaml

from lightning_fed.data.images import ImageData
from lightning_fed.data.load import load_images
from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.protection import check_record, doses_of
from lightning_fed.federation.roster import Roster, make_roster
from lightning_fed.federation.site import build_classifier
from lightning_fed.federation.strategy import GlobalModel
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.distillation import Distilling
from lightning_fed.models.export import load_weights
from lightning_fed.models.optimizer import build_optimizer
from lightning_fed.models.vector import vector_size
from lightning_fed.paths import user_path
from lightning_fed.studies.pretraining import pretrain, refuse_other_images
from lightning_fed.tracking.wandb import agents_run


@dataclass(frozen=True)
class Prepared:
    """An experiment whose images, hospitals and network exist: everything that can be checked without Ray."""

    experiment: Experiment
    data: ImageData
    roster: Roster
    classifier: Classifier
    model: GlobalModel


def resolve(experiment: Experiment) -> Experiment:
    """The experiment with its paths absolute and its output named.

    A new run's folder is called after the data and the moment, such as `runs/bloodcells-20250101-120000`, and
    after its run in a W&B sweep, as several agents may start one in the same second.
    """
    run = agents_run()
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S") + (f"-{run}" if run else "")
    output = user_path(experiment.output or f"runs/{experiment.data.name}-{stamp}").resolve()
    root = experiment.data.root
    data = replace(experiment.data, root=str(user_path(root).resolve()) if root else None)
    start = experiment.model.start
    model = replace(experiment.model, start=str(user_path(start).resolve()) if start else None)
    return replace(experiment, data=data, model=model, output=str(output))


def prepare(experiment: Experiment, pretrained: bool = True) -> Prepared:
    """Read the images, share them out and build the first global model.

    Args:
        experiment: resolved. pretrained: false leaves `model.pretrained` out, for a look that must not train.

    Raises:
        InputError: the experiment or a file that it names does not fit.
    """
    data = load_images(experiment.data)
    roster = make_roster(experiment, data)
    classifier = build_classifier(experiment, data)
    _check_network(classifier, data)
    trained = build_classifier(experiment, data, 0)
    if isinstance(trained, Distilling):
        trained.refuse_unfit(data.size)
    if experiment.model.start is not None:
        refuse_private_start(experiment, Path(experiment.model.start))
        load_weights(classifier, Path(experiment.model.start))
    if experiment.model.pretrained is not None:
        refuse_other_images(data)
    if experiment.privacy.by_images:
        check_record(classifier, experiment, data.size)
    sizes = [len(member.train) for member in roster.members]
    roster = roster.with_doses(doses_of(experiment, sizes, vector_size(classifier.network)))
    _refuse_cut_noise(experiment, roster)
    build_optimizer(classifier.network.parameters(), experiment.training)  # hospitals build the same later
    if experiment.model.pretrained is not None and pretrained:  # last, as it may take minutes
        pretrain(classifier, experiment, data)
    model = GlobalModel.first(experiment, classifier.network)
    return Prepared(experiment, data, roster, classifier, model)


def refuse_private_start(experiment: Experiment, start: Path) -> None:
    """Raise where a guarantee would start from weights that a run made of the same images.

    Raises:
        InputError: the experiment beside the weights names the same data, and they are not drawn.
    """
    beside = start.with_name("experiment.yaml")
    if not experiment.privacy.guarantees or not beside.exists():
        return
    try:
        name = yaml.safe_load(beside.read_text())["data"]["name"]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return
    if name == experiment.data.name and name != "bloodcells":
        raise InputError(
            f"model.start: {start} was trained on {name}, the images to be protected; start from public ones"
        )


def _refuse_cut_noise(experiment: Experiment, roster: Roster) -> None:
    """Raise where secure aggregation would clip the noise of an update, and so shift the sum."""
    if experiment.secagg.protocol == "plain" or experiment.privacy.mechanism != "update" or roster.doses is None:
        return
    deviation = roster.doses[0].noise_multiplier * experiment.privacy.deviation_per_multiplier
    if 6 * deviation > experiment.secagg.clip:
        raise InputError(
            f"secagg.clip is {experiment.secagg.clip:g}: it would cut noise of standard deviation "
            f"{deviation:.3g}; set it to {6 * deviation:.3g} or more"
        )


def _check_network(classifier: Classifier, data: ImageData) -> None:
    """Raise unless two images give two rows of logits."""
    images = torch.from_numpy(data.validation.images[:1].repeat(2, axis=0))
    wanted = (2, len(data.class_names))
    classifier.eval()
    try:
        with torch.no_grad():
            found = tuple(classifier(images).shape)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"model: it does not take {data.size}-pixel images ({error}); change it") from error
    if found != wanted:
        raise InputError(f"model: logits of shape {found} instead of {wanted}; change its last layer")
