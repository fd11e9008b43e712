"""The smaller parts of the benchmarks: needles, sizes, installing, keeping and drawing results, scaling."""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cbor2
import pytest

import bench.__main__ as command
from bench import flame, peers, plots, results, scaling, setting
from bench.learning import data
from bench.peers import needle, sizes
from bench.peers.installing import install, requirements
from bench.peers.load import Load, Meter
from bench.peers.process import Worker
from bench.peers.rounds import Setup, UncountedGroups
from bench.peers.shim import Syncs
from bench.plots import bars
from bench.workload import encoded


@pytest.mark.parametrize("before", [b"", b"1", b"12", b"123"])
def test_the_needle_is_found_plain_and_in_base64_whatever_stands_before_it(tmp_path: Path, before: bytes) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "plain").write_bytes(before + needle.NEEDLE + b"behind")
    (tmp_path / "below" / "coded").write_bytes(base64.b64encode(before + needle.NEEDLE + b"behind"))
    (tmp_path / "other").write_bytes(b"src/module_1.py " + base64.b64encode(b"src/module_1.py"))
    assert needle.files_with(tmp_path) == ["below/coded", "plain"]


def test_the_needle_is_in_every_step_of_the_first_episode_and_in_no_other() -> None:
    load = Load(20, 3, 300, Meter(Syncs(), lambda: None))
    for episode in range(20):
        for number in range(3):
            assert (needle.NEEDLE in encoded(load.step(episode, number))) is (episode == 0)
            assert (needle.NEEDLE.decode() in json.dumps(load.item(episode, number))) is (episode == 0)


@pytest.mark.parametrize("size", [300, 2048, 4096])
def test_a_step_has_the_size_that_is_asked_for(size: int) -> None:
    load = Load(1, 1, size, Meter(Syncs(), lambda: None))
    assert abs(len(encoded(load.step(0, 0))) - size) <= 2


def test_real_sizes_come_in_an_order_that_has_each_once() -> None:
    assert sorted(sizes.real()) == sorted(sizes.QUANTILES)
    load = Load(7, 100, sizes.REAL_SIZES, Meter(Syncs(), lambda: None))
    found = [len(encoded(load.step(0, number))) for number in range(len(sizes.QUANTILES))]
    wanted = [max(size, min(found)) for size in sizes.real()]  # what is not output cannot be left out
    assert all(abs(one - other) <= 2 for one, other in zip(found, wanted, strict=True))


def test_the_sizes_are_those_of_the_real_data() -> None:
    lengths = []
    try:
        for name in sizes.FILES:
            for line in data.read(name):
                if line["event"] == "step":
                    result = line["result"] or {}
                    coded = [0, result["success"]] if "success" in result else [1, result.get("error", "")]
                    step = [line["tool"], line["action"], line["parameters"], coded, line["latency_ms"]]
                    lengths.append(len(cbor2.dumps([1, "step", 2**60, step, None])))
    except data.NoData as error:
        pytest.skip(str(error))
    assert sizes.quantiles(lengths, len(sizes.QUANTILES)) == sizes.QUANTILES


def test_a_peer_that_cannot_be_installed_is_named_and_keeps_no_other_away() -> None:
    wanted = requirements()
    assert len(wanted) >= 5
    tried: list[str] = []

    def call(arguments: list[str]) -> int:
        tried.append(arguments[-1])
        return arguments[-1] == wanted[1]

    assert install(wanted, call) == [wanted[1]]
    assert tried == wanted


def test_parts_that_were_measured_alone_replace_only_themselves(tmp_path: Path) -> None:
    results.keep("peers", {"a": 1, "b": 1}, tmp_path, partly=False)
    assert results.keep("peers", {"b": 2}, tmp_path, partly=True) == {"a": 1, "b": 2}
    assert json.loads((tmp_path / "peers.json").read_text()) == {"a": 1, "b": 2}
    assert results.keep("peers", {"c": 3}, tmp_path, partly=False) == {"c": 3}


SUMMARY = {"median": 2.0, "low": 1.0, "high": 4.0}
REPORTS: dict[str, dict[str, Any]] = {
    "peers": {
        "tmpfs, 1 episode": {"ways": {"Stepwell": {"steps_per_second": SUMMARY}, "gone": {"failed": "no"}}},
        "reading back": {"ways": {"Stepwell": {"ms": SUMMARY}, "memory": {"found": 0}}},
        "notes": ["nothing"],
    },
    "scaling": {"length": {"against": "steps", "ways": {"Stepwell": {"1": SUMMARY, "10": SUMMARY}}}},
    "flame": {"log_step": {"stacks": {"a (trio/x);b (stepwell/y)": 7, "a (trio/x)": 3}, "own": {}, "whole": {}}},
    "latency": {"tmpfs": {"p50_us": SUMMARY}, "disk": {"p50_us": SUMMARY}, "episodes": 3},
    "catalog": {"folding": {"episodes": 3, "episodes/s": 5.0, "page ms": {"agent": [0.5, 0.7], "tag": [0.1]}}},
    "learning": {
        "ranking": {"SQL": {"Stepwell": {"recall_10": 1.0, "mrr": 0.9}, "bm25s": {"recall_10": 0.8, "mrr": 0.7}}}
    },
    "ports": {"tmpfs": {"load, awake": {"p50_ms": 0.4, "p99_ms": 3.0}, "log_step": {"per_second": 9.0}}},
}
NAMES = {
    "peers": ["peers-tmpfs-1-episode", "peers-reading-back"],
    "scaling": ["scaling-length"],
    "flame": ["flame-log-step"],
    "latency": ["latency"],
    "catalog": ["catalog"],
    "learning": ["learning"],
    "ports": ["ports"],
}


@pytest.mark.parametrize("subject", REPORTS)
def test_pictures_are_drawn_as_png_and_as_svg(subject: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; `make .venv/.installed-bench` installs it")
    files = plots.draw(subject, REPORTS[subject], tmp_path)
    assert [file.name for file in files] == [name + end for name in NAMES[subject] for end in (".png", ".svg")]
    for file in files:
        head = file.read_bytes()[:200]
        assert head.startswith(b"\x89PNG") if file.suffix == ".png" else b"<?xml" in head


def test_plain_numbers_are_drawn_where_their_name_is_asked_for() -> None:
    report = {
        "rounds": {"ms": SUMMARY, "recorded": {"p50_ms": 9.0}},
        "tmpfs": {"awake": {"p50_ms": 4, "p99_ms": 9.0}, "page ms": {"agent": [0.5, 0.9, 0.7], "none": []}},
        "p50_ms": "not measured",
    }
    found = dict(bars.summaries(report, also=frozenset({"p50_ms", "page ms"})))
    assert found == {
        ("rounds", "ms"): SUMMARY,
        ("tmpfs", "awake", "p50_ms"): {"median": 4, "low": 4, "high": 4},
        ("tmpfs", "agent", "page ms"): {"median": 0.7, "low": 0.5, "high": 0.9},
    }
    assert dict(bars.summaries(report)) == {("rounds", "ms"): SUMMARY}


def test_a_run_leaves_its_numbers_with_commit_machine_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(command.SUBJECTS, "idle", (lambda _options: {"bytes_each": SUMMARY}, ""))
    assert command.main(["idle", "--rounds", "2", "--json", "--output", str(tmp_path)]) == 0
    kept = json.loads((tmp_path / "idle.json").read_text())
    assert kept == json.loads(capsys.readouterr().out)
    assert kept["bytes_each"] == SUMMARY
    assert kept["recorded"]["seconds"] == 0
    assert kept["recorded"]["settings"] == {"rounds": 2, "quick": False, "only": ""}
    assert {"python", "trio", "sqlite", "kernel", "cores", "processor"} <= kept["recorded"]["machine"].keys()
    assert len(kept["recorded"]["commit"].rstrip("+")) == 12 or kept["recorded"]["commit"] == "unknown"


def test_what_needs_the_real_data_says_so_and_lets_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_options: object) -> dict[str, Any]:
        raise data.NoData("the real data is not here")

    monkeypatch.setitem(command.SUBJECTS, "recall", (run, ""))
    assert command.main(["recall", "--output", str(tmp_path)]) == 0
    assert "NOT MEASURED: recall: the real data is not here" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_run_that_failed_in_part_keeps_the_rest_and_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_options: object) -> dict[str, Any]:
        raise results.PartsFailed({"good": {"ways": {}}}, ["bad (Died: DBOS)"])

    monkeypatch.setitem(command.SUBJECTS, "peers", (run, ""))
    assert command.main(["peers", "--output", str(tmp_path)]) == 1
    assert "FAILED in part: peers: failed, and not in the report: bad (Died: DBOS)" in capsys.readouterr().err
    assert json.loads((tmp_path / "peers.json").read_text()).keys() == {"good", "recorded"}


def test_a_part_of_the_peers_that_fails_keeps_no_other_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bad = "disk, 1 episode, 300 bytes"

    def measure(setup: Setup, *_arguments: object) -> dict[str, Any]:
        if setup.title == bad:
            raise UncountedGroups("a: 3 groups, 2 syncs")
        return {}

    monkeypatch.setattr(peers, "PEERS", {})
    monkeypatch.setattr(peers, "MODES", {})
    monkeypatch.setattr(peers, "measure", measure)
    monkeypatch.setattr(setting, "media", lambda: [("disk", tmp_path)])
    options = argparse.Namespace(quick=True, rounds=1, only="")
    with pytest.raises(results.PartsFailed, match=r"disk, 1 episode, 300 bytes .UncountedGroups: a: 3 g") as failed:
        peers.run(options)
    behind = {"disk, 100 episodes, 300 bytes", "reading back", "kill -9", "deleted text", "notes"}
    assert failed.value.report.keys() == behind


def test_a_worker_that_has_ended_is_a_peer_that_failed(tmp_path: Path) -> None:
    with Worker("limit: write, fdatasync", None, tmp_path / "errors") as worker:
        worker.hello()
        wanted = {"path": str(tmp_path), "episodes": 1, "steps": 2, "size": 300, "delay_ns": 0}
        assert "exit code -9" in worker.try_to_ask(do="die", **wanted)["failed"]
        assert worker.try_to_ask(do="ingest", **wanted)["failed"].startswith("its process ended")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_a_subject_that_fails_keeps_no_other_away_and_is_named_at_the_end(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$2 $3"\n[ "$3" != two ]\n')
    python.chmod(0o700)
    arguments = ["BENCH=", f"BIN={tmp_path}", "BENCHES=one two three"]
    ran = subprocess.run(["make", "bench", *arguments], cwd=results.ROOT, capture_output=True, text=True, check=False)
    said = [line for line in ran.stdout.splitlines() if not line.startswith("make")]
    assert said == [
        "== one",
        "bench one",
        "== two",
        "bench two",
        "== three",
        "bench three",
        "bench.page ",
        "FAILED: two",
    ]
    assert ran.returncode != 0


def test_the_cost_of_a_step_is_the_time_until_the_next_is_made() -> None:
    assert scaling.microseconds([(1.0, 0), (1.5, 0), (1.75, 0)]) == [500_000, 250_000]


def test_a_mark_is_the_median_around_it_and_one_that_was_not_reached_is_left_out() -> None:
    rounds = [[float(number + offset) for number in range(200)] for offset in (0, 10, 2)]
    points = scaling.windows(rounds)
    assert points["1"] == {"median": 2, "low": 0, "high": 10}
    assert points["10"] == {"median": 11.5, "low": 9.5, "high": 19.5}
    assert points["100"]["median"] == 101.5
    assert "1000" not in points


def test_bytes_written_for_a_step_at_the_beginning_and_at_the_end() -> None:
    laps = [(0.0, 0)] * 401
    for place, written in ((0, 1_000), (100, 31_000), (300, 100_000), (400, 200_000)):
        laps[place] = (0.0, written)
    assert scaling.written_per_step(laps) == (300, 1_000)
    assert scaling.written_per_step([(0.0, 0)] * 401) == (0, 0)


def test_stacks_are_named_by_function_and_module_and_importing_is_left_out() -> None:
    collapsed = (
        "<module> (bench/flame.py:90);run (trio/_core/_run.py:2543);log_step (stepwell/memory/handle.py:60) 6\n"
        "<module> (bench/flame.py:90);run (trio/_core/_run.py:2543);log_step (stepwell/memory/handle.py:60) 1\n"
        "<module> (bench/flame.py:90);run (trio/_core/_run.py:2543) 3\n"
        "<module> (bench/flame.py:20);_find_and_load (<frozen importlib._bootstrap>:1178) 90\n"
    )
    inner, outer = "log_step (stepwell/memory/handle)", "run (trio/_core/_run)"
    by_stack = flame.stacks(collapsed)
    assert by_stack == {f"<module> (bench/flame);{outer};{inner}": 7, f"<module> (bench/flame);{outer}": 3}
    own, whole = flame.shares(by_stack)
    assert own == {inner: 0.7, outer: 0.3}
    assert whole == {"<module> (bench/flame)": 1, outer: 1, inner: 0.7}
