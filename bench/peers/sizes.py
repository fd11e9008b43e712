"""The sizes of real agents' steps."""

from __future__ import annotations

REAL_SIZES = 0
"""Stands for a size where these sizes are meant."""
FILES = ("tau-airline", "intercode-sql", "intercode-bash", "intercode-python", "reflexion-hotpotqa", "swe-agent")
QUANTILES = (
    52, 53, 60, 67, 74, 79, 83, 87, 91, 94, 98, 101, 103, 106, 108, 109, 110, 113, 114, 117, 119, 122, 124, 127,
    129, 131, 134, 136, 138, 140, 142, 144, 146, 147, 148, 150, 151, 152, 153, 155, 156, 157, 159, 159, 160,
    161, 162, 163, 163, 165, 166, 166, 167, 168, 169, 170, 171, 172, 172, 173, 174, 175, 176, 177, 178, 179,
    180, 181, 182, 183, 183, 184, 185, 186, 186, 187, 188, 188, 189, 190, 191, 192, 193, 194, 195, 196, 197,
    198, 199, 200, 201, 202, 203, 204, 205, 207, 208, 209, 211, 212, 213, 214, 215, 217, 218, 219, 220, 222,
    223, 225, 226, 228, 229, 231, 233, 235, 236, 238, 240, 241, 244, 245, 246, 248, 249, 251, 253, 255, 257,
    259, 262, 264, 266, 268, 270, 272, 274, 276, 278, 280, 283, 286, 288, 291, 293, 296, 298, 301, 304, 308,
    311, 314, 317, 322, 326, 330, 334, 337, 342, 346, 349, 353, 357, 364, 370, 376, 380, 387, 394, 400, 408,
    413, 421, 430, 446, 457, 471, 484, 497, 508, 526, 539, 557, 576, 591, 613, 632, 657, 681, 709, 727, 753,
    795, 879, 999, 1179, 1523, 2274, 5489,
)  # fmt: skip
"""Of 57,070 steps of real agents in these files, as long as the log has them: each stands for an equal share of
all. The longest few, up to a megabyte, are in none of them."""


def quantiles(values: list[int], count: int) -> tuple[int, ...]:
    """`count` values that stand for as many equal shares of all: the middle one of each share."""
    ordered = sorted(values)
    return tuple(ordered[(2 * place + 1) * len(ordered) // (2 * count)] for place in range(count))


def real() -> tuple[int, ...]:
    """Sizes in the order in which they are used: mixed, and the same in every run."""
    return tuple(QUANTILES[place * 83 % len(QUANTILES)] for place in range(len(QUANTILES)))
