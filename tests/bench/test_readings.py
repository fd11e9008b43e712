"""What the page of the benchmarks says of their numbers."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench import page, peers, readings, results, setting
from bench.__main__ import SUBJECTS as COMMANDS
from bench.peers.names import IN_GROUPS, PEERS
from bench.readings import Figure, figures, reading

SUMMARY = {"median": 2.0, "low": 1.0, "high": 4.0}
RATE: dict[str, Any] = {"steps_per_second": {"median": 90.0, "low": 80.0, "high": 99.0}}
SLOW = "tmpfs + 1 ms, 100 episodes, 300 bytes"


def test_the_page_is_made_of_the_numbers_that_are_there() -> None:
    # `python -m bench.page` writes it; a picture or a number that was changed by hand shows here.
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.inserted(text, page.section(results.MEASURED, "bench/"))


def test_every_picture_of_the_documentation_is_there_also_as_svg() -> None:
    for file in (results.ROOT / "docs").glob("*.md"):
        for shown in re.findall(r"!\[[^\]]*\]\((bench/[^)]+)\)", file.read_text(encoding="utf-8")):
            assert (file.parent / shown).is_file(), f"{file.name}: {shown}"
            assert (file.parent / shown).with_suffix(".svg").is_file(), f"{file.name}: {shown}"


def test_make_bench_measures_what_the_page_shows() -> None:
    makefile = (results.ROOT / "Makefile").read_text(encoding="utf-8")
    listed = re.search(r"^BENCHES \?= (.*)$", makefile, re.M)
    assert listed is not None
    assert tuple(listed[1].split()) == readings.SUBJECTS
    assert set(readings.SUBJECTS) == COMMANDS.keys() - {"ports", "soak"}  # one is in `recall`, one takes ten minutes


def test_every_setup_that_an_aim_is_about_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(setting, "media", lambda: [("tmpfs", tmp_path), ("disk", tmp_path)])
    report: dict[str, Any] = {"reading back": {"ways": {way: {"ms": SUMMARY} for way in PEERS}}}
    for setup in peers.setups(argparse.Namespace(quick=False), slowed=True):
        asked = IN_GROUPS if setup.shares_syncs else PEERS
        report[setup.title] = {"ways": {way: {"steps_per_second": SUMMARY} for way in asked}}
    lines = [figure.what for figure in figures("peers", report)]
    assert len(lines) == len(set(lines)) == 6 + 6 + 2 + 4 + 2 + 2
    best_of = {
        f"tmpfs + 1 ms, {many} episodes, {size} bytes" for many in (100, 512, "1,000") for size in (300, "2,048")
    }
    assert best_of <= report.keys()


def test_a_missed_line_is_named_with_what_it_was_and_should_be() -> None:
    found = [Figure("speed", 90, "steps/s", least=100), Figure("time", 2.5, "ms", most=3), Figure("size", 7)]
    assert [figure.reached for figure in found] == [False, True, None]
    assert reading(found) == "**Reached**: 1 of 2 lines that have an aim. **Missed**: speed (90 steps/s, aim ≥ 100)."
    assert reading(found[1:2]) == "**Reached.**"
    assert reading(found[2:]) == "Nothing was aimed at here."
    many = [Figure(f"line {number}", 0, least=1) for number in range(9)]
    assert reading(many).endswith("line 5 (0, aim ≥ 1); and 3 more, which the table marks.")


@pytest.mark.parametrize(
    ("value", "text"), [(0.3184, "0.318"), (2.0, "2"), (41.84, "41.8"), (35_821.4, "35,821"), (None, "")]
)
def test_numbers_have_the_digits_that_say_something(value: float | None, text: str) -> None:
    assert readings.shown(value) == text


def _peers(**rates: float) -> dict[str, Any]:
    ways = {name.replace("_", " "): {"steps_per_second": {**SUMMARY, "median": rate}} for name, rate in rates.items()}
    ways["Stepwell, acknowledged"] = RATE
    return {SLOW: {"ways": ways}, "notes": []}


def test_a_loss_against_a_peer_is_a_missed_line() -> None:
    report = _peers(DBOS=1.0, LangGraph_SqliteSaver=3.0)
    report[SLOW]["ways"]["sqlite3, group commit"] = {"steps_per_second": {**SUMMARY, "median": 100.0}}
    found = {figure.what: (round(figure.value, 2), figure.reached) for figure in figures("peers", report)}
    assert found == {
        "1 ms, 100 episodes: times LangGraph SqliteSaver": (30, False),
        "1 ms, 100 episodes: times DBOS": (90, True),
        "1 ms, 300 bytes, each at its best number: times sqlite3, group commit": (0.9, False),
    }


@pytest.mark.parametrize(
    ("steps_per_second", "share", "judged"),
    [
        (60_000.0, 0.3, {"of payload": True}),  # 240 MB/s
        (30_000.0, 0.7, {"share of a plain loop": True}),  # 120 MB/s, on a machine whose plain loop is slow too
        (30_000.0, 0.3, {"of payload": False}),
    ],
)
def test_large_steps_are_judged_by_their_bytes_or_by_their_share_of_the_plain_loop(
    steps_per_second: float, share: float, judged: dict[str, bool]
) -> None:
    title = "log_step of 4 KiB, 1,000 episodes"
    numbers = {
        "steps_per_second": {**SUMMARY, "median": steps_per_second},
        "ratio": {**SUMMARY, "median": share},
        "bytes_per_step": 4_000,
    }
    found = figures("runtime", {"disk": {title: numbers}})
    verdicts = {figure.what.rpartition(", ")[2]: figure.reached for figure in found if figure.reached is not None}
    assert verdicts == judged
    megabytes = next(figure for figure in found if figure.unit == "MB/s")
    assert megabytes.value == steps_per_second * 4_000 / 1e6


def test_reading_back_is_compared_with_the_best_durable_peer() -> None:
    ways = {
        "Stepwell, batches of 64": {"ms": {**SUMMARY, "median": 3.0}},
        "sqlite3, commit per step": {"ms": {**SUMMARY, "median": 2.0}},
        "eventsourcing application": {"ms": {**SUMMARY, "median": 5.0}},
        "limit: write, fdatasync": {"ms": {**SUMMARY, "median": 0.1}},
        "not durable: LangGraph memory": {"found": 0},
    }
    (found,) = figures("peers", {"reading back": {"ways": ways}})
    assert (found.value, found.reached) == (1.5, False)


def test_a_page_shows_pictures_table_and_what_it_was_measured_on(tmp_path: Path) -> None:
    report = {"bytes_each": {**SUMMARY, "median": 7_000.0}, "recorded": {"commit": "abc", "at": "now", "seconds": 9}}
    (tmp_path / "idle.json").write_text(json.dumps(report))
    (tmp_path / "idle.png").write_bytes(b"")
    (tmp_path / "idle-more.png").write_bytes(b"")
    text = page.section(tmp_path, "pictures/")
    assert "![idle: each figure, lowest to highest](pictures/idle.png)" in text
    assert "idle-more" not in text
    assert "| memory of an episode that does nothing | 7,000 bytes | ≤ 6,144 | **missed** |" in text
    assert "Commit `abc`, now, ? rounds, in 9 s" in text
    assert page.inserted(f"a\n{page.BEGIN}\nold\n{page.END}\nz", text) == f"a\n{page.BEGIN}\n\n{text}\n{page.END}\nz"


def test_what_was_measured_in_part_has_the_lines_of_that_part() -> None:
    assert figures("scaling", {"size of the log": {"against": "MB", "ways": {}}}) == []
    assert figures("catalog", {}) == figures("recall", {"locomo": "not here"}) == figures("learning", {}) == []
    assert figures("soak", {}) == []
