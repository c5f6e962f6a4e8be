"""How a privacy loss is written: rounded up, as a smaller number would promise too much."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Decimal


def epsilon_text(epsilon: float) -> str:
    """Such as `5.44` for 5.4312: two decimals, or two digits of a small one, never below what was spent."""
    if not math.isfinite(epsilon):
        return "infinite"
    digits = 2 if epsilon <= 0 else max(2, 1 - math.floor(math.log10(epsilon)))
    return str(Decimal(repr(epsilon)).quantize(Decimal(1).scaleb(-digits), ROUND_CEILING))


def delta_text(delta: float) -> str:
    """Such as `0.00019` or `8.34e-05`: three digits, never below the delta for which epsilon holds."""
    exact = Decimal(repr(float(delta)))
    return f"{float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 2), ROUND_CEILING)):.3g}"
