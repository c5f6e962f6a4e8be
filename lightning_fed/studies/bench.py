"""`lightning-fed bench`: measurements of this machine, each against a floor from the same call."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

from lightning_fed.checks import suggestion
from lightning_fed.errors import InputError
from lightning_fed.studies.bench_federation import FederationJob, bench_federation
from lightning_fed.studies.bench_secagg import SecAggJob, bench_secagg


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise InputError(f"bench: {message}")


def bench_command(words: Sequence[str]) -> int:
    """Run a benchmark: its table, then as the last line one JSON object.

    Raises:
        InputError: an unknown benchmark or option.
    """
    parser = _Parser(prog="lightning-fed bench", description=__doc__)
    parser.add_argument("name", help=f"one of: {', '.join(BENCHES)}")
    parser.add_argument("--hospitals", type=int, help="soak: 100; others: 10")
    parser.add_argument("--images", type=int, help="training images of each hospital; soak: 50, federation: 1195")
    parser.add_argument(
        "--width", type=int, help="of DPResNet; federation: 16, secagg: 64, soak: 8, clipping: both"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        help="federation: 6 with one that is not counted; secagg, noise: 5; clipping: 9; distributed: 100; "
        "soak: 1000",
    )
    parser.add_argument(
        "--batch",
        type=int,
        help="clipping: images of a step; soak: the same, 8; distributed: of all hospitals, 320",
    )
    parser.add_argument("--every", type=int, default=50, help="soak: rounds from one look at the run to the next")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of a process")
    parser.add_argument("--parameters", type=int, default=4_802_120, help="secagg: length of an update")
    parser.add_argument(
        "--packed_only", action="store_true", help="leave out a process each, and with it the top-level figures"
    )
    options = parser.parse_args(list(words))
    if options.name not in BENCHES:
        raise InputError(f"no benchmark '{options.name}': {suggestion(options.name, BENCHES)}")
    print(json.dumps(BENCHES[options.name](options)))
    return 0


def _federation(options: argparse.Namespace) -> dict[str, Any]:
    hospitals, images = _given(options.hospitals, 10), _given(options.images, 1195)
    rounds, width = _given(options.rounds, 6), _given(options.width, 16)
    return bench_federation(FederationJob(hospitals, images, width, rounds, options.threads), options.packed_only)


def _secagg(options: argparse.Namespace) -> dict[str, Any]:
    rounds, width = _given(options.rounds, 5), _given(options.width, 64)
    return bench_secagg(SecAggJob(_given(options.hospitals, 10), options.parameters, rounds, width))


def _clipping(options: argparse.Namespace) -> dict[str, Any]:
    from lightning_fed.studies.bench_clipping import ClippingJob, bench_clipping  # Opacus, for this one alone

    return bench_clipping(ClippingJob(_given(options.rounds, 9), options.threads, options.width, options.batch))


def _noise(options: argparse.Namespace) -> dict[str, Any]:
    from lightning_fed.studies.bench_noise import bench_noise  # SciPy, for this one alone

    return bench_noise(_given(options.rounds, 5))


def _distributed(options: argparse.Namespace) -> dict[str, Any]:
    from lightning_fed.studies.bench_distributed import DistributedJob, bench_distributed

    hospitals, rounds = _given(options.hospitals, 10), _given(options.rounds, 100)
    width, batch = _given(options.width, 16), _given(options.batch, 320)
    return bench_distributed(DistributedJob(hospitals, width, batch, rounds, options.threads))


def _soak(options: argparse.Namespace) -> dict[str, Any]:
    from lightning_fed.studies.bench_soak import SoakJob, bench_soak

    hospitals, rounds = _given(options.hospitals, 100), _given(options.rounds, 1000)
    images, width, batch = _given(options.images, 50), _given(options.width, 8), _given(options.batch, 8)
    return bench_soak(SoakJob(hospitals, rounds, images, width, batch, options.every, options.threads))


def _given(number: int | None, default: int) -> int:
    return default if number is None else number


BENCHES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "federation": _federation,
    "secagg": _secagg,
    "clipping": _clipping,
    "noise": _noise,
    "distributed": _distributed,
    "soak": _soak,
}
