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
    """For some stretches, of a word or more each.

    Every word of a file, at each of its four alignments, is looked up in a table of the words with which stretches
    begin; only where it is one of them are bytes compared.
    """

    def __init__(self, stretches: Sequence[bytes]) -> None:
        self._by_word: dict[int, list[bytes]] = {}
        for stretch in stretches:
            self._by_word.setdefault(int.from_bytes(stretch[:WORD], "little"), []).append(stretch)
        self._words = np.array(sorted(self._by_word), dtype=np.uint32)
        self._table = np.zeros(2**16, dtype=bool)
        self._table[self._words & 0xFFFF] = True

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

    def _at(self, content: Any, start: int) -> bool:
        word = int.from_bytes(content[start : start + WORD], "little")
        return any(content[start : start + len(stretch)] == stretch for stretch in self._by_word[word])

    def _places(self, content: Any) -> Iterator[int]:
        """Where a word of the table is."""
        for begin in range(0, len(content), CHUNK):
            chunk = content[begin : begin + CHUNK + WORD]  # which may begin in one and end in the next
            for offset in range(min(WORD, len(chunk))):
                words = np.frombuffer(chunk, dtype="<u4", count=max(len(chunk) - offset, 0) // WORD, offset=offset)
                near = np.flatnonzero(self._table[words & 0xFFFF])
                for place in near[np.isin(words[near], self._words)]:
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
