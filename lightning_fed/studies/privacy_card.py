"""The guarantee of a run, from what its hospitals' ledgers were charged for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lightning_fed.experiment import Experiment
from lightning_fed.privacy.dose import Dose
from lightning_fed.studies.pretraining import features_of
from lightning_fed.tracking.results import PrivacySummary

NO_NOISE = (
    "privacy.noise is false: updates are clipped and no noise is added, as in the paper's published code, so that "
    "nothing is guaranteed"
)


def privacy_card(
    experiment: Experiment,
    doses: Sequence[Dose] | None,
    sizes: Sequence[int],
    spent: Sequence[int],
    sums: Sequence[Sequence[int]] = (),
) -> PrivacySummary:
    """What is guaranteed, to whom, by which accountant, at which deltas.

    Args:
        experiment: the run's. doses: of the hospitals, None without a mechanism. sizes: training images of each.
        spent: releases that each hospital's ledger was charged for. sums: the hospitals in each opened sum.
    """
    privacy = experiment.privacy
    features = features_of(experiment)
    if doses is None:
        return PrivacySummary(reproducible=privacy.reproducible, features=features)
    unit = doses[0].unit
    if not privacy.guarantees:
        return PrivacySummary(
            privacy.mechanism,
            unit,
            max_grad_norm=privacy.max_grad_norm,
            reproducible=privacy.reproducible,
            features=features,
            reason=NO_NOISE,
        )
    from lightning_fed.privacy.doses import epsilon_of

    pairs = list(zip(doses, spent, strict=True))
    curve = [epsilon_of(*pair) for pair in pairs]
    return PrivacySummary(
        mechanism=privacy.mechanism,
        unit=unit,
        adjacency=doses[0].adjacency,
        epsilon=max(curve),
        delta=privacy.delta,
        epsilon_by_hospital=tuple(curve),
        accountant=accountant_of(*max(pairs, key=lambda pair: epsilon_of(*pair)), privacy.accountant),
        reproducible=privacy.reproducible,
        sample_rate_by_hospital=tuple(dose.rate for dose in doses),
        steps_by_hospital=tuple(spent),
        noise_multiplier_by_hospital=tuple(dose.noise_multiplier for dose in doses),
        counted_survivors_by_hospital=tuple(dose.counted_survivors for dose in doses),
        **_of_joint_noise(experiment, pairs, sums),
        **_by_other_questions(privacy.tuning_runs, pairs, strict_delta=1 / (10 * sum(sizes))),
        budget=privacy.epsilon,
        max_grad_norm=privacy.max_grad_norm,
        starts_from=experiment.model.start,
        features=features,
        reason=None,
    )


def _by_other_questions(runs: int, pairs: Sequence[tuple[Dose, int]], strict_delta: float) -> dict[str, Any]:
    """The same noise for other neighbours, by other accountants, at another delta, after a choice among runs."""
    from lightning_fed.privacy.doses import epsilon_if_blanked, epsilon_if_replaced, epsilon_of
    from lightning_fed.privacy.tuning import epsilon_of_best

    def worst(epsilon: Callable[..., float], **options: Any) -> float:
        """Of all hospitals: which one it is depends on the question."""
        return max(epsilon(*pair, **options) for pair in pairs)

    by_images = pairs[0][0].unit == "image"
    return {
        "epsilon_replace_one": worst(epsilon_if_replaced),
        "epsilon_zero_out": worst(epsilon_if_blanked),
        "epsilon_rdp": worst(epsilon_of, accountant="rdp") if by_images else None,
        "epsilon_pld": worst(epsilon_of, accountant="pld") if by_images else None,
        "strict_delta": strict_delta,
        "epsilon_strict_delta": worst(epsilon_of, delta=strict_delta),
        "tuning_runs": runs,
        "epsilon_tuned": worst(epsilon_of_best, runs=runs) if runs > 1 else None,
    }


def accountant_of(dose: Dose, steps: int, accountant: str) -> str:
    """The accountant that enforced, in words; where it could not answer, the one that did in its place."""
    from lightning_fed.privacy.accounting import answers
    from lightning_fed.privacy.poisson import PoissonGaussian

    if dose.unit == "hospital":
        return "exact Gaussian"
    if dose.joint is not None and dose.joint.distribution == "skellam":
        return "rdp, Skellam"
    if steps == 0:
        return accountant
    multiplier, delta = dose.noise_multiplier, dose.delta
    if dose.joint is not None:
        from lightning_fed.privacy.joint import gaussian_asked

        multiplier, delta = gaussian_asked(dose.joint, multiplier, delta)
    answered = answers(PoissonGaussian(dose.rate, multiplier, steps), delta)
    return accountant if answered == "prv" else f"{answered} in place of {accountant}"


def _of_joint_noise(
    experiment: Experiment, pairs: Sequence[tuple[Dose, int]], sums: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """What is told of noise that hospitals share out."""
    if pairs[0][0].joint is None:
        return {}
    from lightning_fed.privacy.doses import epsilon_of_sums, epsilon_with_all

    colluding = experiment.privacy.colluding_hospitals
    realised = [
        epsilon_of_sums(dose, steps, [len(counted) - colluding for counted in sums if hospital in counted])
        for hospital, (dose, steps) in enumerate(pairs)
    ]
    return {
        "distribution": experiment.privacy.distribution,
        "epsilon_realised": max(realised),
        "epsilon_all_survivors": max(epsilon_with_all(*pair) for pair in pairs),
    }
