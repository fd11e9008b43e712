"""How sure a share is that was counted, and how a thing fades that was not seen for a while."""

from __future__ import annotations

import math

from stepwell.model.pattern import WHOLE, Interval

Z_95 = 1.96
BOOST = 0.25
HALF_LIFE_DAYS = 30.0
_DAY_NS = 86_400 * 10**9


def wilson(wins: float, trials: float, z: float = Z_95) -> Interval:
    """The Wilson score interval of a share (E. B. Wilson, 1927): 0 to 1 where nothing was tried.

    `wins` may have a fraction, as a partial success has. z = 1.96 gives 95 %.
    """
    if trials <= 0:
        return Interval(0.0, 1.0)
    share = min(max(wins / trials, 0.0), 1.0)
    square = z * z
    centre = share + square / (2 * trials)
    margin = z * math.sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    below = 1 + square / trials
    # At both ends the formula is exact, but for the last digit of a float.
    low = 0.0 if share == 0 else max(0.0, (centre - margin) / below)
    high = 1.0 if share == 1 else min(1.0, (centre + margin) / below)
    return Interval(low, high)


def success_interval(wins: int, trials: int) -> Interval:
    """The interval of success counted in thousandths of an episode."""
    return wilson(wins / WHOLE, trials)


def advice_boost(helped: float, judged: int) -> float:
    """What feedback adds to the score of advice, -0.25 to 0.25; 0 while nobody has judged it.

    The lower bound of "it helped" less the lower bound of "it did not", times 0.25. Each success raises it and each
    failure lowers it, and the more of them there are, the further it may go.
    """
    return BOOST * (wilson(helped, judged).low - wilson(judged - helped, judged).low)


def recency(last_ns: int | None, now_ns: int) -> float:
    """1 for now, half of it for each 30 days that have passed; 1 for the future, 0 for never. Nothing is stored."""
    if last_ns is None:
        return 0.0
    return math.pow(0.5, max(0, now_ns - last_ns) / _DAY_NS / HALF_LIFE_DAYS)
