"""Whether files hold one of many stretches of bytes, in one pass over each."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WORD = 4
"""Bytes by which a place is first looked at."""
CHUNK = 2**24


class Search:
    """For some stretches, of two words or more each.

    Every word of a file, at each of its four alignments, is looked up in a table of the words with which stretches
    begin; only where it and the word behind it are some stretch's are bytes compared.
    """

    def __init__(self, stretches: Sequence[bytes]) -> None:
        self._by_start: dict[int, list[bytes]] = {}
        for stretch in stretches:
            self._by_start.setdefault(int.from_bytes(stretch[: 2 * WORD], "little"), []).append(stretch)
        self._starts = np.array(sorted(self._by_start), dtype=np.uint64)
        self._table = np.zeros(2**16, dtype=bool)
        self._table[self._starts & np.uint64(0xFFFF)] = True

    def first_of(self, places: Iterable[Path]) -> Path | None:
        """The first file, of those named or in folders that are named, which holds one; None where none does."""
        for place in places:
            for file in [place] if place.is_file() else place.rglob("*"):
                if any(self.found_in(content) for content in _content(file)):
                    return file
        return None

    def found_in(self, content: Any) -> bool:
        """Whether some bytes hold one of them."""
        return any(self._at(content, start) for start in self._places(content))

    def _at(self, content: Any, place: int) -> bool:
        start = int.from_bytes(content[place : place + 2 * WORD], "little")
        return any(content[place : place + len(stretch)] == stretch for stretch in self._by_start[start])

    def _places(self, content: Any) -> Iterator[int]:
        """Where two words are those of a stretch."""
        if not len(self._starts):
            return
        for begin in range(0, len(content), CHUNK):
            chunk = content[begin : begin + CHUNK + 2 * WORD]  # which may begin in one and end in the next
            for offset in range(min(WORD, len(chunk))):
                words = np.frombuffer(chunk, dtype="<u4", count=(len(chunk) - offset) // WORD, offset=offset)
                near = np.flatnonzero(self._table[words[:-1] & 0xFFFF])
                pairs = words[near] | words[near + 1].astype(np.uint64) << np.uint64(8 * WORD)
                found = np.searchsorted(self._starts, pairs).clip(max=len(self._starts) - 1)
                for place in near[self._starts[found] == pairs]:
                    yield begin + offset + WORD * int(place)


def _content(file: Path) -> Iterator[Any]:
    """The bytes of a file, as it is mapped; nothing where it is none, or has gone."""
    try:
        if not file.is_file() or file.stat().st_size == 0:
            return
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield mapped
    except OSError:
        return
