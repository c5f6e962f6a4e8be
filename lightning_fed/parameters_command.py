"""`lightning-fed secagg-parameters`: the rule's degree and threshold."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import NoReturn

from lightning_fed.checks import in_range, one_of
from lightning_fed.errors import InputError
from lightning_fed.secagg.errors import UnsafeParametersError
from lightning_fed.secagg.parameters import COMPLETE_BELOW, Assumption, complete_graph, rule

SERVERS = ("semi_honest", "semi_malicious")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"secagg-parameters: {message}")


def parameters_command(words: Sequence[str]) -> int:
    """Print hospitals, degree and threshold as JSON; a run of fewer than 16 takes the complete graph instead.

    Raises:
        InputError: an option is wrong, or nothing holds at these rates.
    """
    parser = _Parser(prog="lightning-fed secagg-parameters", description=__doc__)
    parser.add_argument("--hospitals", type=int, required=True)
    parser.add_argument("--adversaries", type=float, default=0.1, help="share that colludes with the server")
    parser.add_argument("--dropouts", type=float, default=0.1, help="share that drops out of a round")
    parser.add_argument("--server", default="semi_malicious", help=" or ".join(SERVERS))
    options = parser.parse_args(list(words))
    one_of("secagg-parameters", SERVERS, server=options.server)
    in_range("secagg-parameters", 0, 1, adversaries=options.adversaries, dropouts=options.dropouts)
    assumption = Assumption(options.adversaries, options.dropouts, options.server)
    try:
        found = rule(options.hospitals, assumption)
        if options.hospitals < COMPLETE_BELOW:
            graph = complete_graph(options.hospitals)
            print(
                f"a run of fewer than {COMPLETE_BELOW} hospitals takes the complete graph: degree {graph.degree}, "
                f"threshold {graph.threshold}",
                file=sys.stderr,
            )
        print(json.dumps({name: getattr(found, name) for name in ("hospitals", "degree", "threshold")}))
    except UnsafeParametersError as error:
        raise InputError(f"secagg-parameters: {error}") from error
    return 0
