"""What the C library does with memory that torch has freed.

glibc gives large freed blocks back to the system at once and asks for them again in the next step: for a width-16
DPResNet that is a hundred thousand page faults and a tenth of the time of one hospital's round. So a hospital's
process keeps what it freed, and gives it back between its pieces of work only where that is much, and where the
page faults of having it again are little beside the work. Elsewhere than on glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt(3)
NEVER = 2**31 - 1
MUCH = 96 * 2**20  # bytes
BYTES_A_SECOND = 5e9  # at which the system hands out pages: measured, 25 to 30 ms for 150 MB
LITTLE = 0.05  # of the work's seconds


class _Mallinfo2(ctypes.Structure):
    """`struct mallinfo2` of mallinfo(3); `fordblks` are the free bytes."""

    _fields_ = (
        *((f"other{place}", ctypes.c_size_t) for place in range(8)),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )


@cache
def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    if not all(hasattr(library, name) for name in ("mallopt", "malloc_trim", "mallinfo2")):
        return None
    library.mallinfo2.restype = _Mallinfo2
    return library


def keep_freed_memory() -> None:
    """From now on this process reuses what it freed."""
    library = _glibc()
    if library is not None:
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, NEVER)


def return_much_freed_memory(seconds: float) -> None:
    """Give what is free back to the system if it is more than `MUCH` and the next work bears it.

    Args:
        seconds: of the work that was just done; the next is taken to be as long.
    """
    library = _glibc()
    free = library.mallinfo2().fordblks if library is not None else 0
    if library is not None and free > MUCH and free / BYTES_A_SECOND < LITTLE * seconds:
        library.malloc_trim(0)
