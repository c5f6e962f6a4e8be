"""Every hospital of 4, 5 and 6 dropping out at its own stage: all 55,728 patterns, by `make test-exhaustive`.

pytest collects this file only where it is named. It goes on where it was interrupted: finished blocks are kept in
pytest's cache for as long as the code under test stays as it is (`--cache-clear` forgets them).
"""

from __future__ import annotations

import hashlib
from itertools import product
from pathlib import Path

import pytest

import lightning_fed.secagg
from lightning_fed.secagg.parameters import Parameters, complete_graph
from tests.secagg.parties import NEVER
from tests.secagg.test_protocol import Pattern, play

CHOICES = range(NEVER + 1)
BLOCKS = [(n, first) for n in (4, 5, 6) for first in product(CHOICES, repeat=n - 3)]
LOOSE = 2
"""A threshold at which many more patterns open than at the rule's."""


def patterns(hospitals: int, first: Pattern) -> list[Pattern]:
    return [(*first, *rest) for rest in product(CHOICES, repeat=hospitals - len(first))]


def code_under_test() -> str:
    sources = [*Path(lightning_fed.secagg.__file__).parent.glob("*.py"), *Path(__file__).parent.glob("*.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()[:16]


CODE = code_under_test()


def test_the_blocks_hold_every_pattern_once() -> None:
    found = [pattern for hospitals, first in BLOCKS for pattern in patterns(hospitals, first)]
    assert len(found) == len(set(found)) == 6**4 + 6**5 + 6**6 == 55_728


@pytest.mark.parametrize(("hospitals", "first"), BLOCKS, ids=lambda part: str(part))
def test_every_pattern_of_dropouts_opens_the_survivors_sum_or_aborts(
    hospitals: int, first: Pattern, pytestconfig: pytest.Config
) -> None:
    key = f"secagg/exhaustive/{CODE}/{hospitals}-{'-'.join(map(str, first))}"
    if pytestconfig.cache.get(key, False):
        pytest.skip("finished before, with this code")
    for seed, pattern in enumerate(patterns(hospitals, first)):
        play(complete_graph(hospitals), pattern, seed)
        play(Parameters(hospitals, hospitals - 1, LOOSE), pattern, seed)
    pytestconfig.cache.set(key, True)
