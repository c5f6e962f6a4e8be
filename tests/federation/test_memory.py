"""Freed memory stays with the process until it is much."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from lightning_fed.federation import memory

SCRIPT = """
import resource, sys, numpy, psutil
from lightning_fed.federation import memory

def step():
    return numpy.ones(3_000_000).sum()  # 24 MB

memory.keep_freed_memory()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
large = numpy.ones(20_000_000)  # 160 MB
del large
kept = psutil.Process().memory_info().rss
memory.return_much_freed_memory(float(sys.argv[1]))
print(kept - psutil.Process().memory_info().rss)
"""

pytestmark = pytest.mark.skipif(memory._glibc() is None, reason="the C library is not glibc 2.33 or newer")


def faults_and_returned(seconds: float) -> tuple[int, int]:
    """Page faults of twenty steps that free 24 MB each, and bytes given back after `seconds` that freed 160 MB."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(seconds)], capture_output=True, text=True, check=True)
    faults, returned = done.stdout.split()
    return int(faults), int(returned)


def test_what_is_freed_is_reused_without_page_faults() -> None:
    pages = 24_000_000 // resource.getpagesize()
    faults, _ = faults_and_returned(5.0)
    assert faults < pages


def test_much_freed_memory_goes_back_to_the_system() -> None:
    _, returned = faults_and_returned(5.0)
    assert returned > memory.MUCH


def test_work_that_is_short_beside_the_page_faults_keeps_its_memory() -> None:
    _, returned = faults_and_returned(0.2)
    assert returned < memory.MUCH // 8
