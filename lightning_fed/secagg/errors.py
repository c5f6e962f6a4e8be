"""The ways in which the protocol says no."""

from __future__ import annotations


class ProtocolError(RuntimeError):
    """A party refuses a message: it contradicts the protocol or what the party saw itself."""


class RoundAbortedError(RuntimeError):
    """Too few hospitals are left, or their shares do not fit: the sum of this round cannot be opened."""


class UnsafeParametersError(ValueError):
    """A degree and threshold that do not hold at the stated rates; the message says why and what would."""
