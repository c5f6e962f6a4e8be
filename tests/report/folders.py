"""Run folders made of small dicts."""

import json
from pathlib import Path
from typing import Any

import yaml

CLASSES = ("basophil", "platelet")


def experiment(hospitals: int = 3, rounds: int = 2) -> dict[str, Any]:
    return {
        "data": {"name": "bloodmnist"},
        "federation": {"hospitals": hospitals, "rounds": rounds},
        "privacy": {"mechanism": "none"},
        "seed": 4711,
    }


def line(number: int, hospitals: int = 3, looked: bool = True, classes: int = 2) -> dict[str, Any]:
    everyone = list(range(hospitals))
    return {
        "round": number,
        "cohort": everyone,
        "images": [100 + who for who in everyone],
        "seconds": {"train": 8.25, "aggregate": 0.125, "evaluate": 3.5},
        "aggregation": {"counted": everyone[:-1], "failed": None},
        "released": {
            "split": "validation",
            "accuracy": 0.8123,
            "balanced_accuracy": 0.7456,
            "auroc": 0.9134,
            "loss": 0.5678,
            "per_class_accuracy": [0.9] * classes,
        },
        "diagnostic": {
            "train_loss": 0.4321,
            "fits": [{"hospital": who, "loss": 0.25 + who, "seconds": 1.5 + who} for who in everyone],
            "hospitals": [{"hospital": who, "accuracy": 0.5 + 0.4 * who / hospitals} for who in everyone]
            if looked
            else [],
        },
    }


def summary(hospitals: int = 3, rounds: int = 2, classes: tuple[str, ...] = CLASSES) -> dict[str, Any]:
    return {
        "status": "completed",
        "rounds": rounds,
        "hospitals": hospitals,
        "seed": 4711,
        "test": {
            "accuracy": 0.8768,
            "balanced_accuracy": 0.7654,
            "auroc": 0.9321,
            "loss": 0.3456,
            "per_class_accuracy": [0.6543] * len(classes),
        },
        "hospital_accuracy": {"worst": 0.61, "best": 0.93, "mean": 0.8, "gap": 0.32},
        "data": {
            "name": "bloodmnist",
            "title": "BloodMNIST rebuilt from PBC",
            "size": 28,
            "rebuilt": True,
            "class_names": list(classes),
            "images_by_hospital": [37 * len(classes)] * hospitals,
            "classes_by_hospital": [[37] * len(classes)] * hospitals,
        },
        "privacy": {"mechanism": "none", "epsilon": None, "reason": "no noise is added"},
        "secagg": {
            "protocol": "plain",
            "degree": None,
            "threshold": None,
            "dropped": 0,
            "upload_bytes_per_hospital": 1230000,
            "seconds": 0.25,
        },
        "seconds": {"total": 60.5, "startup": 40.0, "train": 16.5, "aggregate": 0.25, "evaluate": 7.0},
        "evaluation_split": "validation",
        "output": "/somewhere",
        "versions": {"torch": "9.8.7"},
    }


def write(
    folder: Path,
    planned: dict[str, Any] | None = None,
    lines: list[dict[str, Any]] | None = None,
    result: dict[str, Any] | None = None,
) -> Path:
    """A run folder; without `result` an unfinished one."""
    (folder / "experiment.yaml").write_text(yaml.safe_dump(planned or experiment()))
    told = [line(1), line(2)] if lines is None else lines
    (folder / "rounds.jsonl").write_text("".join(json.dumps(one) + "\n" for one in told))
    if result is not None:
        (folder / "summary.json").write_text(json.dumps(result))
    return folder


def of_size(folder: Path, hospitals: int, rounds: int, classes: tuple[str, ...] = CLASSES) -> Path:
    """A finished run."""
    lines = [line(number, hospitals, classes=len(classes)) for number in range(1, rounds + 1)]
    return write(folder, experiment(hospitals, rounds), lines, summary(hospitals, rounds, classes))


def spent(number: int, who: int) -> float:
    """Epsilon of hospital `who` after a round; the last hospital is the worst."""
    return 1.5 * number + 0.25 * who


def protected_line(number: int, hospitals: int = 3, noise: bool = True) -> dict[str, Any]:
    """A round of a run with a mechanism."""
    told = line(number, hospitals, looked=False)
    if noise:
        curve = [spent(number, who) for who in range(hospitals)]
        told["released"] |= {"epsilon": max(curve), "epsilon_by_hospital": curve}
    for fit in told["diagnostic"]["fits"]:
        ratio = 0.07 + 0.01 * fit["hospital"] if noise else None
        fit |= {"clipped": 0.75, "median_norm": 2.5 + fit["hospital"], "signal_to_noise": ratio}
    return told


def protected(
    folder: Path, mechanism: str = "record", hospitals: int = 3, rounds: int = 2, **changes: object
) -> Path:
    """A finished run with a guarantee; `changes` are of the summary's privacy."""
    planned, result = experiment(hospitals, rounds), summary(hospitals, rounds) | {"hospital_accuracy": None}
    images = mechanism == "record"
    planned["privacy"] = {"mechanism": mechanism, "epsilon": 6.0, "delta": 1.9e-4, "max_grad_norm": 7.0}
    result["data"]["images_by_hospital"] = [100 * (who + 1) for who in range(hospitals)]
    result["privacy"] = {
        "mechanism": mechanism,
        "unit": "image" if images else "hospital",
        "adjacency": "zero_out",
        "epsilon": 5.4312,
        "delta": 1.9e-4,
        "epsilon_replace_one": 12.9,
        "epsilon_zero_out": 5.4312,
        "epsilon_by_hospital": [5.4312 - 0.125 * who for who in range(hospitals)],
        "accountant": "prv" if images else "exact Gaussian",
        "reproducible": False,
        "sample_rate_by_hospital": [0.25 if images else 1.0] * hospitals,
        "steps_by_hospital": [1234] * hospitals,
        "noise_multiplier_by_hospital": [1.125] * hospitals,
        "epsilon_rdp": 6.1 if images else None,
        "epsilon_pld": 5.4 if images else None,
        "strict_delta": 8.4e-6,
        "epsilon_strict_delta": 7.7,
        "budget": 6.0,
        "max_grad_norm": 7.0,
        "reason": None,
    } | changes
    lines = [protected_line(number, hospitals) for number in range(1, rounds + 1)]
    return write(folder, planned, lines, result)


def noiseless(folder: Path) -> Path:
    """A finished run of clipped updates without noise."""
    planned, result = experiment(), summary()
    planned["privacy"] = {"mechanism": "update", "epsilon": None, "delta": 1.9e-4, "max_grad_norm": 7.0}
    result["privacy"] = {"mechanism": "update", "unit": "hospital", "epsilon": None, "reason": "noise is false"}
    return write(folder, planned, [protected_line(1, noise=False)], result)
