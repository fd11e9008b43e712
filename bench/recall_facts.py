"""100,000 facts in one scope: remembering them in batches, searching them, and searching them again after a reopening.

Each fact is about as long as a turn of a conversation, has a session, a date and some words of its own; half the
words are common. The searches ask for words of real facts.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from pathlib import Path
from typing import Any

from bench import setting
from stepwell import Fact, Scope, open_memory

FACTS, BATCH, SEARCHES = 100_000, 1_000, 200
TARGET_MS, TARGET_RATE = 15, 20_000
_SCOPE = Scope.workspace("team")
_SEED = 7


def _facts(count: int) -> list[Fact]:
    """Word frequencies fall as those of a language do (Zipf)."""
    rng = random.Random(_SEED)
    vocabulary = [f"word{number}" for number in range(20_000)]
    weights = [1 / (number + 10) for number in range(len(vocabulary))]
    said = iter(rng.choices(vocabulary, weights, k=18 * count))
    return [
        Fact(
            f"{'Ann' if number % 2 else 'Bob'}: {' '.join(next(said) for _ in range(18))}",
            {"session": number // 25, "session_date": f"{1 + number % 28} May, {2020 + number % 4}"},
        )
        for number in range(count)
    ]


async def _measure(path: Path, count: int) -> dict[str, float]:
    facts = _facts(count)
    rng = random.Random(_SEED)
    queries = [" ".join(rng.sample(fact.text.split()[1:], 5)) for fact in rng.sample(facts, SEARCHES)]
    gc.collect()
    async with open_memory(path) as memory:
        began = time.perf_counter()
        for first in range(0, count, BATCH):
            await memory.long_term.remember_many(_SCOPE, facts[first : first + BATCH])
        remembering = time.perf_counter() - began
        began = time.perf_counter()
        await memory.long_term.search(_SCOPE, queries[0])
        first_search = time.perf_counter() - began
        milliseconds: list[float] = []
        for query in queries:
            began = time.perf_counter()
            found = await memory.long_term.search(_SCOPE, query, 10)
            milliseconds.append(1000 * (time.perf_counter() - began))
            assert found
    async with open_memory(path) as memory:
        began = time.perf_counter()
        await memory.long_term.remember(_SCOPE, Fact("one more"))
        waking = time.perf_counter() - began
        began = time.perf_counter()
        await memory.long_term.search(_SCOPE, queries[0])
        rebuilding = time.perf_counter() - began
    milliseconds.sort()
    return {
        "facts_per_s": count / remembering,
        "search_p50_ms": statistics.median(milliseconds),
        "search_p95_ms": milliseconds[int(0.95 * len(milliseconds))],
        "first_search_s": first_search,
        "remember_after_opening_ms": 1000 * waking,
        "search_after_opening_s": rebuilding,
    }


async def measure(rounds: int, *, quick: bool) -> dict[str, Any]:
    """Medians over rounds, on tmpfs if there is one."""
    count = FACTS // 10 if quick else FACTS
    found: list[dict[str, float]] = []
    for _ in range(rounds):
        with setting.scratch(setting.media()[0][1]) as path:
            found.append(await _measure(path / "log", count))
    return {"facts": count} | {key: setting.summary([item[key] for item in found]) for key in found[0]}


def rows(report: dict[str, Any]) -> list[list[str]]:
    """The table for people."""
    lines = [
        ("remember, in batches of 1,000", "facts_per_s", ",.0f", "facts/s", f"≥ {TARGET_RATE:,}"),
        ("search, p50", "search_p50_ms", ".1f", "ms", f"≤ {TARGET_MS}"),
        ("search, p95", "search_p95_ms", ".1f", "ms", ""),
        ("first search behind remembering all", "first_search_s", ".1f", "s", ""),
        ("first remember after opening", "remember_after_opening_ms", ".1f", "ms", ""),
        ("first search after opening", "search_after_opening_s", ".1f", "s", ""),
    ]
    return [
        [title, *(format(report[key][name], form) for name in ("median", "low", "high")), unit, target]
        for title, key, form, unit, target in lines
    ]
