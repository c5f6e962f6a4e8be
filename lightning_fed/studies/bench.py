"""`lightning-fed bench`: measurements of this machine, each against a floor from the same call."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from lightning_fed.checks import suggestion
from lightning_fed.errors import InputError
from lightning_fed.studies.bench_federation import FederationJob, bench_federation

BENCHES = ("federation",)


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
    parser.add_argument("--hospitals", type=int, default=10)
    parser.add_argument("--images", type=int, default=1195, help="training images of each hospital")
    parser.add_argument("--width", type=int, default=16, help="of DPResNet")
    parser.add_argument("--rounds", type=int, default=6, help="the first is not counted")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of a process")
    parser.add_argument(
        "--packed_only", action="store_true", help="leave out a process each, and with it the top-level figures"
    )
    options = parser.parse_args(list(words))
    if options.name not in BENCHES:
        raise InputError(f"no benchmark '{options.name}': {suggestion(options.name, BENCHES)}")
    job = FederationJob(options.hospitals, options.images, options.width, options.rounds, options.threads)
    print(json.dumps(bench_federation(job, options.packed_only)))
    return 0
