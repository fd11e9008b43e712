"""Numbers from places where anything may stand: metadata given by callers, latencies measured elsewhere."""

from __future__ import annotations

import math

_LONGEST_NUMBER = 40


def finite(value: object) -> float | None:
    """The value as a finite number, or None if it is not one.

    Accepts numbers and their text, with blanks around it and a percent sign after it (`85`, `"85.5"`, `" 85 % "`).
    A truth value is not a number here.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if len(value) > _LONGEST_NUMBER:
            return None
        value = value.strip().removesuffix("%")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
