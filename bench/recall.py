"""What recall finds (on LoCoMo, beside what users would pick instead), and how fast it is with 100,000 facts."""

from __future__ import annotations

import argparse
from typing import Any

import trio

from bench import locomo, ports, recall_facts, setting
from bench.recall_baselines import BASELINES, wordllama_embedder
from stepwell import Fact, MemoryConfig, open_memory

TARGET = locomo.Scores(0.63, 0.73, 0.50)
_WITH_VECTORS = "Stepwell, the same with wordllama"
_COLUMNS = ["", "R@5", "R@10", "MRR"]


def _bare(turn: locomo.Turn) -> Fact:
    return Fact(turn.document)


def _dated(turn: locomo.Turn) -> Fact:
    return Fact(f"[{turn.date}] {turn.document}")


async def _quality() -> dict[str, locomo.Scores | str]:
    """The scores of every system, or why it has none."""
    conversations = locomo.load()
    found: dict[str, locomo.Scores | str] = {}
    for name, make in BASELINES:
        try:
            prepare = make()
        except ImportError as error:
            found[name] = f"not installed: {error.name}"
            continue
        found[name] = await locomo.measure(conversations, prepare)
    for name, fact_of in (
        ("Stepwell, facts with nothing but the text", _bare),
        ("Stepwell, the date in the text", _dated),
        ("Stepwell, session and date as metadata", locomo.fact_of),
    ):
        async with open_memory(":memory:") as memory:
            found[name] = await locomo.recalled(memory.long_term, conversations, fact_of)
    try:
        embedder = wordllama_embedder()
    except ImportError as error:
        found[_WITH_VECTORS] = f"not installed: {error.name}"
        return found
    async with open_memory(":memory:", config=MemoryConfig(embedder=embedder)) as memory:
        found[_WITH_VECTORS] = await locomo.recalled(memory.long_term, conversations)
    return found


async def _each_left_out() -> dict[str, locomo.Scores]:
    """The scores of each conversation alone: what a setting would get on one that it was not chosen on differs by no
    more than these do."""
    found = {}
    for conversation in locomo.load():
        async with open_memory(":memory:") as memory:
            found[conversation.name] = await locomo.recalled(memory.long_term, [conversation])
    return found


def _row(name: str, scores: locomo.Scores | str) -> list[str]:
    return [name, scores, "", ""] if isinstance(scores, str) else [name, *(f"{score:.3f}" for score in scores)]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All tables, that of the other ports as well."""
    report: dict[str, Any] = {"machine": setting.machine()}
    if locomo.DATA.is_dir():
        quality, apart = trio.run(_quality), trio.run(_each_left_out)
        report["locomo"] = {
            name: scores if isinstance(scores, str) else scores._asdict() for name, scores in quality.items()
        }
        report["conversations"] = {name: scores._asdict() for name, scores in apart.items()}
        setting.show(
            "recall: LoCoMo, which turns hold the answer",
            _COLUMNS,
            [*(_row(*item) for item in quality.items()), *(_row(f"  {name} alone", apart[name]) for name in apart)],
            [f"target: ≥ {' / '.join(f'{score:.2f}' for score in TARGET)}"],
        )
    else:
        report["locomo"] = "the real agent data is not here: no ../shared/data beside the repository"
        setting.show("recall: LoCoMo", [str(report["locomo"])], [])
    facts = trio.run(lambda: recall_facts.measure(options.rounds, quick=options.quick))
    report["facts"] = facts
    setting.show(
        f"recall: {facts['facts']:,} facts in one scope",
        ["", "median", "low", "high", "", "target"],
        recall_facts.rows(facts),
        [f"{options.rounds} rounds, on {setting.media()[0][0]}"],
    )
    report["ports"] = ports.run(options)
    return report
