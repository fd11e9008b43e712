"""What the numbers of a subject say: each figure that has an aim, whether it was reached, and by what it was missed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.recall import TARGET
from bench.results import RECORDED
from bench.runtime import LOADS, Load

Report = dict[str, Any]
_LISTED = 6
"""So many missed lines are named in a reading; the table behind it has all."""


@dataclass(frozen=True)
class Figure:
    """One number of a report, and what it should be at least or at most; an aim of None is none."""

    what: str
    value: float
    unit: str = ""
    least: float | None = None
    most: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether it is what it should be; None where nothing was aimed at."""
        if self.least is None and self.most is None:
            return None
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    @property
    def aim(self) -> str:
        """The aim as text."""
        return f"≥ {shown(self.least)}" if self.least is not None else f"≤ {shown(self.most)}" if self.most else ""


def shown(value: float | None) -> str:
    """A number with as many digits as say something."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1_000 or value == int(value) else f"{value:,.3g}"


def figures(subject: str, report: Report) -> list[Figure]:
    """Those of a subject; none for one that has no aims, or for what was not measured."""
    read = _READERS.get(subject)
    return [] if read is None else [figure for figure in read(report) if figure is not None]


def reading(found: list[Figure]) -> str:
    """One sentence or two: what was reached and what was missed."""
    judged = [figure for figure in found if figure.reached is not None]
    missed = [
        f"{it.what} ({shown(it.value)}{it.unit and ' ' + it.unit}, aim {it.aim})" for it in judged if not it.reached
    ]
    if not judged:
        return "Nothing was aimed at here."
    if not missed:
        return f"**Reached**: all {len(judged)} lines that have an aim." if len(judged) > 1 else "**Reached.**"
    listed = "; ".join(missed[:_LISTED])
    if len(missed) > _LISTED:
        listed += f"; and {len(missed) - _LISTED} more, which the table marks"
    return f"**Reached**: {len(judged) - len(missed)} of {len(judged)} lines that have an aim. **Missed**: {listed}."


def _media(report: Report) -> Iterator[tuple[str, Report]]:
    for medium in ("tmpfs", "disk"):
        if isinstance(report.get(medium), dict):
            yield medium, report[medium]


def _ingest(report: Report) -> Iterator[Figure]:
    for medium, numbers in _media(report):
        yield Figure(f"{medium}: durable steps", numbers["memory"]["median"], "steps/s", least=80_000)
        yield Figure(f"{medium}: share of a plain loop", numbers["ratio"]["median"], least=0.25)


def _latency(report: Report) -> Iterator[Figure]:
    for medium, numbers in _media(report):
        for way, title in (("commit", '`durability="commit"`'), ("receipt", "`wait_durable`")):
            yield Figure(f"{medium}: {title} ÷ bare write, p50", numbers[way]["ratio"]["median"], most=1.5)


def _recover(report: Report) -> Iterator[Figure]:
    for medium, numbers in _media(report):
        yield Figure(f"{medium}: first answer", 1_000 * numbers["first answer"]["median"], "ms", most=1_000)
        yield Figure(f"{medium}: peak memory", numbers["rss_mib"]["median"], "MiB")


def _runtime(report: Report) -> Iterator[Figure]:
    for medium, numbers in _media(report):
        for load in LOADS:
            if load.title in numbers:
                found, title = numbers[load.title], f"{medium}: {load.title}"
                yield Figure(title, found["steps_per_second"]["median"], "steps/s", least=load.steps_per_second or None)
                yield from _against_the_plain_loop(load, title, found)
                if "p99_ms" in found:
                    aim = 20 if load.producers == 512 else None
                    yield Figure(f"{title}, p99", found["p99_ms"]["median"], "ms", most=aim)


def _against_the_plain_loop(load: Load, title: str, found: Report) -> Iterator[Figure]:
    share = found["ratio"]["median"]
    by_share = load.ratio > 0
    if load.megabytes_per_second:  # either is enough: the bytes are judged, unless only the share is what it should be
        megabytes = found["steps_per_second"]["median"] * found["bytes_per_step"] / 1e6
        by_share = megabytes < load.megabytes_per_second and share >= load.ratio
        aim = None if by_share else load.megabytes_per_second
        yield Figure(f"{title}, of payload", megabytes, "MB/s", least=aim)
    if load.ratio:
        yield Figure(f"{title}, share of a plain loop", share, least=load.ratio if by_share else None)


def _rotation(report: Report) -> Iterator[Figure]:
    for medium, numbers in _media(report):
        yield Figure(f"{medium}: lost to leaving segments", numbers["lost_percent"]["median"], "%", most=5)


def _compaction(report: Report) -> Iterator[Figure]:
    for medium, numbers in _media(report):
        yield Figure(f"{medium}: lost to compaction beside it", numbers["lost_percent"]["median"], "%", most=20)
        yield Figure(f"{medium}: compacted", numbers["compaction_mb_per_s"]["median"], "MB/s", least=20)


def _sealed(report: Report) -> Iterator[Figure]:
    for part, key, unit, least, most in (
        ("reopen, page cache warm", "first_answer_ms", "ms", None, 1_000),
        ("reopen, page cache dropped", "first_answer_ms", "ms", None, 1_000),
        ("reopen, page cache dropped", "rss_mib", "MiB", None, 300),
        ("200 steps in 20 batches", "cold_p50_ms", "ms", None, 2),
        ("200 steps in 20 batches", "warm_p50_ms", "ms", None, 1),
        ("200 steps in 200 batches", "cold_p50_ms", "ms", None, 15),
        ("200 steps in 200 batches", "warm_p50_ms", "ms", None, 1),
        ("verify, 10 steps a batch", "mb_per_second", "MB/s", 1_000, None),
        ("verify, 1 step a batch", "mb_per_second", "MB/s", 600, None),
        ("replay through follow", "events_per_second", "events/s", 400_000, None),
    ):
        title = key.removesuffix("_ms").removesuffix("_mib").replace("_", " ")
        yield Figure(f"{part}: {title}", report[part][key]["median"], unit, least, most)


def _catalog(report: Report) -> Iterator[Figure]:
    if folding := report.get("folding"):
        yield Figure("folding anew", folding["episodes/s"], "episodes/s", least=20_000)
        yield Figure("size without text", folding["bytes"]["without text"], "bytes/episode", most=600)
        for kind, most in (("text", 30), ("", 5)):
            pages = {name: max(each) for name, each in folding["page ms"].items() if ("text" in name) == bool(kind)}
            slowest = max(pages, key=lambda name: pages[name])
            yield Figure(f"slowest page by {slowest}, p50", pages[slowest], "ms", most=most)
    if cost := report.get("ingest"):
        for mode, title in (("catalog", "the catalog"), ("all", "all projections")):
            yield Figure(f"ingest slower by, with {title}", 100 * cost[mode]["slower by"]["median"], "%", most=10)
            yield Figure(f"{title} caught up after, at most", cost[mode]["caught up after s"]["high"], "s", most=1)


def _idle(report: Report) -> Iterator[Figure]:
    yield Figure("memory of an episode that does nothing", report["bytes_each"]["median"], "bytes", most=6_144)


def _wake(report: Report) -> Iterator[Figure]:
    yield Figure("waking one, p50", report["wake_p50_ms"]["median"], "ms", most=3)
    yield Figure("waking one, p99", report["wake_p99_ms"]["median"], "ms")
    yield Figure("memory with 1,000 live", report["rss_mib"]["median"], "MiB", most=250)
    if "folding" in report:
        yield Figure(
            "the same at most, while all catalogs are made anew", report["folding"]["peak_mib"], "MiB", most=250
        )


def _recall(report: Report) -> Iterator[Figure]:
    if isinstance(report.get("locomo"), dict):
        found = report["locomo"]["Stepwell, session and date as metadata"]
        for name, title in (("recall_5", "R@5"), ("recall_10", "R@10"), ("reciprocal", "MRR")):
            yield Figure(f"LoCoMo, {title}", found[name], least=getattr(TARGET, name))
    if facts := report.get("facts"):
        yield Figure("remembering", facts["facts_per_s"]["median"], "facts/s", least=20_000)
        yield Figure("searching 100,000 facts, p50", facts["search_p50_ms"]["median"], "ms", most=15)
    for medium, numbers in _media(report.get("ports", {})):
        for state in ("awake", "asleep", "behind an append"):
            yield Figure(f"{medium}: `load`, {state}, p50", numbers[f"load, {state}"]["p50_ms"], "ms", most=2)
        for event in ("ToolCall", "LlmCall"):
            share = numbers[f"record({event})"]["of_log_step"]
            yield Figure(f"{medium}: `record({event})` ÷ `log_step`", share, least=0.9)


def _learning(report: Report) -> Iterator[Figure]:
    for collection, aims in (("SQL paraphrases", {"recall_1": 0.68, "mrr": 0.79}), ("airline, same task", {})):
        for title, found in report.get("ranking", {}).get(collection, {}).items():
            if title == "Stepwell, lexical":
                for name in ("recall_1", "recall_10", "mrr"):
                    yield Figure(f"{collection}: {name.replace('recall_', 'R@')}", found[name], least=aims.get(name))
    if ways := report.get("advice", {}).get("ways"):
        for way, found in ways.items():
            yield Figure(f"advice, hit@3, {way}", found["task"]["hits"] / found["task"]["of"])
    if throughput := report.get("throughput"):
        yield Figure("learner", throughput["episodes_per_second"], "episodes/s")
        yield Figure("completing an episode of 1,000 steps", throughput["complete_1000_steps_ms"], "ms")
    if scale := report.get("scale"):
        yield Figure(f"retrieval over {scale['episodes']:,} episodes, p50", scale["p50_ms"], "ms", most=30)
        yield Figure(f"retrieval over {scale['episodes']:,} episodes, p90", scale["p90_ms"], "ms")


def _scaling(report: Report) -> Iterator[Figure]:
    name = "Stepwell, acknowledged"
    points = report.get("length of the episode", {}).get("ways", {}).get(name, {})
    if {"10", "10000"} <= points.keys():
        yield Figure("the 10,000th step ÷ the 10th", points["10000"]["median"] / points["10"]["median"], most=1.2)
    for part in ("number of episodes", "size of the log"):
        points = report.get(part, {}).get("ways", {}).get(name, {})
        if len(points) > 1:
            first, *_, last = points
            cost = points[last]["median"] / points[first]["median"]
            yield Figure(f"a step at {int(last):,} {report[part]['against']} ÷ at {int(first):,}", cost)


def _flame(report: Report) -> Iterator[Figure]:
    for title, part in report.items():
        if title != RECORDED:
            for function, share in list(part["own"].items())[:3]:
                yield Figure(f"{title}: `{function.partition(' (')[0]}` by itself", 100 * share, "%")


_COMMITTED_EACH = (
    "sqlite3, commit per step",
    "LangGraph SqliteSaver",
    "LangGraph AsyncSqliteSaver",
    "eventsourcing application",
    "openai-agents SQLiteSession",
    "DBOS",
)
_OWN, _BATCHES, _GROUPS = "Stepwell, acknowledged", "Stepwell, batches of 64", "sqlite3, group commit"


def _peers(report: Report) -> Iterator[Figure]:
    parts = {title: part["ways"] for title, part in report.items() if isinstance(part, dict) and "ways" in part}

    def rate(title: str, way: str) -> float:
        return float(parts.get(title, {}).get(way, {}).get("steps_per_second", {}).get("median", 0))

    def against(title: str, way: str, own: str = _OWN) -> float:
        return rate(title, own) / rate(title, way) if rate(title, own) and rate(title, way) else 0

    slow = "tmpfs + 1 ms"
    for many in ("100", "1,000"):
        for peer in _COMMITTED_EACH:
            if times := against(f"{slow}, {many} episodes, 300 bytes", peer):
                yield Figure(f"1 ms, {many} episodes: times {peer}", times, least=40)
    for size, aim in (("300", 1.4), ("2,048", 2.0)):
        titles = [f"{slow}, {many} episodes, {size} bytes" for many in ("100", "512", "1,000")]
        best, other = (max(rate(title, way) for title in titles) for way in (_OWN, _GROUPS))
        if best and other:
            yield Figure(f"1 ms, {size} bytes, each at its best number: times {_GROUPS}", best / other, least=aim)
    for size in ("300", "4,096"):
        title = f"{slow}, 100 episodes, {size} bytes"
        for rival, least in (("eventsourcing, batches of 64", 3), ("not durable: LangGraph memory", 1)):
            if times := against(title, rival, _BATCHES):
                yield Figure(f"1 ms, {size} bytes, batches of 64: times {rival}", times, least=least)
    for medium in (slow, "disk"):
        title = f"{medium}, 1 episode, 300 bytes"
        rates = [rate(title, way) for way in parts.get(title, {}) if _is_durable_peer(way)]
        if own := rate(title, _OWN):
            yield Figure(f"{medium}: serial latency ÷ the best peer's", max(rates) / own, most=1.3)
    reads = {way: found["ms"]["median"] for way, found in parts.get("reading back", {}).items() if "ms" in found}
    best_read = min((ms for way, ms in reads.items() if _is_durable_peer(way)), default=0)
    for way in (_BATCHES, _OWN):
        if best_read and way in reads:
            yield Figure(
                f"reading 1,024 steps back, {way.partition(', ')[2]} ÷ the best durable peer",
                reads[way] / best_read,
                most=1,
            )


def _is_durable_peer(way: str) -> bool:
    return not way.startswith(("Stepwell", "not durable", "limit")) and "batches" not in way


_READERS: dict[str, Callable[[Report], Iterator[Figure]]] = {
    "ingest": _ingest,
    "latency": _latency,
    "recover": _recover,
    "runtime": _runtime,
    "rotation": _rotation,
    "compaction": _compaction,
    "sealed": _sealed,
    "catalog": _catalog,
    "idle": _idle,
    "wake": _wake,
    "recall": _recall,
    "learning": _learning,
    "scaling": _scaling,
    "flame": _flame,
    "peers": _peers,
}
SUBJECTS = tuple(_READERS)
"""The subjects of `make bench`, in its order."""
