"""What learning finds and costs, on the real data (see `data`) and, for time, on made data at scale.

`ranking`: do the words or vectors of a query find what is meant; `peers`: what else ranks texts, in the same run.
`advice`: does what is found come from runs that solved the task. `throughput`: how fast the learner is. `scale`: how
long retrieval takes over 1,000,000 episodes.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import trio

from bench import setting
from bench.learning import advice, data, peers, ranking, scale, throughput
from stepwell import InvalidInput, MemoryConfig


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All of it, or with `--only TEXT` the parts whose name has the text: ranking, advice, throughput, scale."""
    parts: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
        "ranking": _rank,
        "advice": _advise,
        "throughput": throughput.run,
        "scale": _scale,
    }
    return {name: part(options) for name, part in parts.items() if options.only in name}


def _rank(_options: argparse.Namespace) -> dict[str, Any]:
    return trio.run(_ranking)


async def _ranking() -> dict[str, Any]:
    report: dict[str, Any] = {}
    for collection in (ranking.sql_paraphrases(), ranking.airline_tasks()):
        figures: dict[str, ranking.Figures] = {}
        missing: list[str] = []
        names, texts = list(collection.documents), list(collection.documents.values())
        for title, peer in peers.PEERS.items():
            try:
                search = peers.searching(names, peer(texts))
            except (ImportError, InvalidInput) as error:
                missing.append(f"{title}: {error}")
                continue
            figures[title] = await ranking.judge(collection.questions, search)
        found, ranked_by = await ranking.of_stepwell(collection)
        figures[f"Stepwell, {ranked_by}"] = found
        if importlib.util.find_spec("wordllama") is not None:
            from stepwell.embedding import wordllama_embedder

            config = MemoryConfig(embedder=wordllama_embedder())
            found, ranked_by = await ranking.of_stepwell(collection, config)
            figures[f"Stepwell with wordllama, {ranked_by}"] = found
        setting.show(
            f"{collection.title}: {len(collection.questions)} questions over {len(texts)} tasks",
            ("", "R@1", "R@10", "MRR (± 95 %)"),
            [
                (title, f"{it.recall_1:.3f}", f"{it.recall_10:.3f}", f"{it.mrr:.3f} ± {it.mrr_half:.3f}")
                for title, it in figures.items()
            ],
            [f"not measured, since it is not installed: {what}" for what in missing],
        )
        report[collection.title] = {title: asdict(it) for title, it in figures.items()}
    return report


def _advise(_options: argparse.Namespace) -> dict[str, Any]:
    found = trio.run(advice.measure)
    setting.show(
        f"Does advice help? {found['episodes']:,} episodes of ten agents; {found['questions']:,} tasks of six others",
        ("three episodes from", "one solved that task", "one solved a task of that database"),
        [(way, str(shares["task"]), str(shares["database"])) for way, shares in found["ways"].items()],
        [f"at most {found['ceiling']:.3f} of the tasks were solved by one of the ten", "in brackets: Wilson, 95 %"],
    )
    ways = {
        way: {name: {"hits": it.hits, "of": it.of, "interval": it.interval()} for name, it in shares.items()}
        for way, shares in found["ways"].items()
    }
    return {**found, "ways": ways}


_MILLISECONDS = ("p50_ms", "p90_ms", "p99_ms", "max_ms", "just_opened_p50_ms", "very_first_p50_ms")


def _scale(options: argparse.Namespace) -> dict[str, Any]:
    found = scale.run(options)
    setting.show(
        f"retrieve_relevant_context over {found['episodes']:,} episodes",
        ("p50", "p90", "p99", "longest", "first 20 of an opening, p50", "first, p50", "hits, mean", "folding once"),
        [
            (
                *(f"{found[name]:.1f} ms" for name in _MILLISECONDS),
                f"{found['hits_mean']:.1f}",
                f"{found['fold_s']:.0f} s",
            )
        ],
    )
    return found


__all__ = ["data", "run"]
