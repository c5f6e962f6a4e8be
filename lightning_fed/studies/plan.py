"""`--dry_run`: what an experiment would do, before any training."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from lightning_fed.data.datamodule import Plan
from lightning_fed.experiment import Experiment, Model, Training
from lightning_fed.federation.enrolment import enrol, ring_of, terms_of, unsafe_choice, upload_bytes
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.registry import build_network
from lightning_fed.models.scattering import ScatterNet
from lightning_fed.models.vector import vector_size
from lightning_fed.privacy.dose import Dose
from lightning_fed.secagg.integers import IntegerSum
from lightning_fed.studies.prepare import Prepared, prepare, resolve
from lightning_fed.studies.pretraining import features_of, pretraining_line
from lightning_fed.studies.privacy_card import NO_NOISE
from lightning_fed.tracking.rounding import epsilon_text

MEASURED_STEPS = 3


def plan_lines(experiment: Experiment) -> list[str]:
    """What would run, in words; a few steps are timed on noise to tell how long it will take.

    Raises:
        InputError: the experiment or a file that it names does not fit.
    """
    prepared = prepare(resolve(experiment), pretrained=False)
    experiment, _ = enrol(experiment, prepared.roster)
    federation = experiment.federation
    steps = [_steps(prepared, hospital) for hospital in range(federation.hospitals)]
    sizes = [len(member.train) for member in prepared.roster.members]
    parameters = len(prepared.model.weights)
    images = sum(member.images_in_a_round(experiment) for member in prepared.roster.members)
    per_image = _seconds_of(prepared)
    seconds = per_image * images * federation.participation
    return [
        f"data: {prepared.data.title}, {len(prepared.data.train)} training images, "
        f"{experiment.data.partition} split, {min(sizes)} to {max(sizes)} to train on at a hospital",
        f"model: {experiment.model.class_path or experiment.model.name}, {parameters:,} weights, "
        f"{4 * parameters / 1e6:.1f} MB in an update",
        *_features(prepared, per_image),
        f"federation: {federation.hospitals} hospitals, {federation.rounds} rounds, "
        f"{min(steps)} to {max(steps)} steps at a hospital in a round",
        f"aggregation: {_aggregation(experiment, parameters, prepared.roster.doses)}",
        *privacy_lines(experiment, prepared.roster.doses, sum(sizes)),
        f"time: about {seconds / 60:.1f} CPU-minutes a round, "
        f"{federation.rounds * seconds / 3600:.2f} CPU-hours in all, measured by {MEASURED_STEPS} steps here",
        f"memory: about {_memory_gigabytes(prepared, parameters):.1f} GB for the hospitals' processes",
    ]


def image_seconds(model: Model, training: Training, batch: int, size: int, channels: int, classes: int) -> float:
    """CPU-seconds of one image's gradient, timed by a few steps on noise.

    Args:
        model, training: the network, and how it trains. batch: images in a step. size, channels, classes: theirs.
    """
    classifier = Classifier(model, training, in_channels=channels, num_classes=classes)
    torch.set_num_threads(training.threads)
    labels = torch.zeros(batch, dtype=torch.int64)
    # Other images in each step: fixed features are computed once for an image.
    batches = torch.randint(0, 256, (MEASURED_STEPS + 1, batch, size, size, channels), dtype=torch.uint8)
    start = time.perf_counter()
    for step, images in enumerate(batches):
        if step == 1:
            start = time.perf_counter()  # the first step warms up
        with torch.autocast("cpu", torch.bfloat16, enabled=training.precision == "bf16-mixed"):
            loss = classifier.training_step((images, labels), step)
        loss.backward()  # type: ignore[no-untyped-call]
    return (time.perf_counter() - start) / MEASURED_STEPS / batch


def privacy_lines(experiment: Experiment, doses: Sequence[Dose] | None, images: int) -> list[str]:
    """The mechanism, and each hospital's noise and epsilon after all of its rounds.

    Args:
        images: of all hospitals.
    """
    privacy = experiment.privacy
    if doses is None:
        return ["privacy: none; epsilon is infinite and no noise is added"]
    if not privacy.guarantees:
        return [f"privacy: {NO_NOISE}"]
    from lightning_fed.privacy.doses import epsilon_of, most_rounds

    budget = "none" if privacy.epsilon is None else f"{privacy.epsilon:g}"
    lines = [
        f"privacy: {privacy.mechanism}, each {doses[0].unit}, clipped to {privacy.max_grad_norm:g}; "
        f"budget {budget} at delta {privacy.delta:g} for the whole run"
    ]
    for hospital, dose in enumerate(doses):
        steps = dose.steps * most_rounds(experiment)
        paid = steps if dose.most_steps is None else min(steps, dose.most_steps // dose.steps * dose.steps)
        rdp = epsilon_of(dose, paid, accountant="rdp")
        lines.append(
            f"  hospital {hospital}: rate {dose.rate:.4f}, {paid} of {steps} steps, noise multiplier "
            f"{dose.noise_multiplier:.4f}, epsilon {epsilon_text(epsilon_of(dose, paid))} "
            + (f"(rdp {epsilon_text(rdp)})" if dose.unit == "image" else "(exact)")
        )
    lines += _joint_lines(doses[0])
    if privacy.delta > 1 / images:
        lines.append(f"  warning: delta {privacy.delta:g} is more than one in the {images} images")
    if privacy.reproducible:
        lines.append("  simulation: the noise can be recomputed from the seed")
    if experiment.model.start is not None:
        lines.append(f"  starts from {experiment.model.start}, which the guarantee does not cover")
    return lines


def _features(prepared: Prepared, seconds_per_image: float) -> list[str]:
    """Where the network's features come from, and what there is to do before the first round."""
    experiment, told = prepared.experiment, features_of(prepared.experiment)
    lines = [] if told is None else [f"features: {told}"]
    if experiment.model.pretrained is not None:
        lines.append(pretraining_line(prepared.classifier, experiment, prepared.data, seconds_per_image))
    return lines


def _joint_lines(dose: Dose) -> list[str]:
    """The noise that hospitals share out."""
    joint = dose.joint
    if joint is None:
        return []
    together = dose.noise_multiplier * math.sqrt(joint.counted)
    return [
        f"  each adds {joint.distribution} noise; that of {joint.counted} honest survivors is counted, multiplier "
        f"{together:.4f} in the sum; C is {joint.bound} steps of the grid"
    ]


def _aggregation(experiment: Experiment, parameters: int, doses: Sequence[Dose] | None) -> str:
    """The protocol, what it hides, and what it sends."""
    dose = doses[0] if doses else None
    most = " at most" if experiment.teacher is not None else ""
    megabytes = upload_bytes(experiment, parameters, dose) / 1e6
    rounds = experiment.federation.rounds
    sent = f"{megabytes:.1f} MB sent by a hospital in a round{most}, {megabytes * rounds / 1e3:,.1f} GB in all"
    if experiment.secagg.protocol == "plain":
        return f"plain; the server sees every hospital's update; {sent}"
    encoding = ring_of(experiment, dose)
    kind = "whole numbers" if isinstance(encoding, IntegerSum) else f"{encoding.bits}-bit integers"
    ring = f"sums modulo 2^{encoding.ring_bits} of {kind}, {sent}"
    if experiment.secagg.protocol == "additive":
        return f"additive; the server sees the sum alone, and none if one hospital drops out; {ring}"
    terms = terms_of(experiment, parameters, dose)
    agreed = terms.parameters
    warning = unsafe_choice(experiment)
    return (
        f"secagg_plus; degree {agreed.degree}, threshold {agreed.threshold} of {agreed.holders} shares; the "
        f"server sees the sum of {terms.least_survivors} hospitals or more; {ring}"
        + (f"; warning: {warning}" if warning else "")
    )


def _steps(prepared: Prepared, hospital: int) -> int:
    experiment = prepared.experiment
    images = len(prepared.roster.members[hospital].train)
    federation = experiment.federation
    size = experiment.training.batch_size
    dose = prepared.roster.members[hospital].dose
    if dose is not None and dose.unit == "image":
        return dose.steps
    return Plan(images, size, federation.local_epochs, federation.local_steps, 0, hospital, 1).length


def _seconds_of(prepared: Prepared) -> float:
    experiment, data = prepared.experiment, prepared.data
    batch = min(experiment.training.batch_size, experiment.privacy.physical_batch_size)
    classes = len(data.class_names)
    trained = [experiment.model, *([experiment.teacher] if experiment.teacher is not None else [])]
    shape = data.size, data.channels, classes
    return sum(image_seconds(model, experiment.training, batch, *shape) for model in trained)


def _memory_gigabytes(prepared: Prepared, parameters: int) -> float:
    """Half a gigabyte for each process with torch and Lightning, five vectors and a memo for each hospital.

    A process has a memo more, to evaluate; a teacher has weights, gradients and two moments of its own.
    """
    experiment, classes = prepared.experiment, len(prepared.data.class_names)
    teacher = experiment.teacher
    taught = 0 if teacher is None else vector_size(build_network(teacher, prepared.data.channels, classes, 0))
    processes, hospitals = len(prepared.roster.groups), experiment.federation.hospitals
    memos = [module.memo.limit for module in prepared.classifier.modules() if isinstance(module, ScatterNet)]
    return (
        0.5 * (processes if experiment.ray.enabled else 1)
        + 4 * (5 * parameters + 4 * taught) * hospitals / 1e9
        + sum(memos) * (hospitals + processes) / 1e9
    )
