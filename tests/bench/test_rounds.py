"""The rounds of `bench peers`, and the tables that are made of them, with workers that only answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.peers.rounds import UncountedGroups, measure
from tests.bench.bench_support import ran, setup, started


def test_peers_take_turns_and_the_first_round_only_warms_up(tmp_path: Path) -> None:
    asked: list[str] = []
    workers = [started(name, lambda _: ran(0.01), asked) for name in ("a", "b")]
    report = measure(setup(tmp_path), workers, rounds=3, quick=False)
    assert asked == ["a", "b"] * 4
    assert report["a"]["runs"] == report["b"]["runs"] == 3


def test_rates_ratios_syncs_and_bytes_are_those_of_the_rounds_behind_the_warm_up(tmp_path: Path) -> None:
    asked: list[str] = []
    seconds_a, seconds_b = [0.01, 0.4, 0.2, 0.1], [0.01, 0.4, 0.8, 0.4]
    a = started("a", lambda n: ran(seconds_a[n], syncs=2, written=900), asked)
    b = started("b", lambda n: ran(seconds_b[n], syncs=6, written=300), asked)
    report = measure(setup(tmp_path, episodes=2), [a, b], rounds=3, quick=False)
    # The warm-up does 10 steps in each of 2 episodes in 10 ms; 0.3 s at that rate are 300 steps in each.
    assert [worker.steps for worker, _ in (a, b)] == [[10, 300, 300, 300]] * 2  # type: ignore[attr-defined]
    assert report["a"]["steps_per_second"] == {"median": 3_000, "low": 1_500, "high": 6_000}
    assert report["b"]["steps_per_second"] == {"median": 1_500, "low": 750, "high": 1_500}
    # Round by round 1,500 to 1,500, 3,000 to 750, 6,000 to 1,500; the ratio of the medians would be 2.
    assert report["b"]["stepwell_is_times"] == {"median": 4, "low": 1, "high": 4}
    assert report["a"]["syncs_per_step"] == pytest.approx(3 * 2 / (3 * 600))
    assert report["b"]["ms_per_sync"] == pytest.approx(1)
    assert report["a"]["bytes_per_step"] == pytest.approx(900 / 600)


def test_a_peer_with_batches_is_compared_with_the_first_that_has_batches(tmp_path: Path) -> None:
    asked: list[str] = []
    workers = [
        started("one by one", lambda _: ran(1.0), asked),
        started("batches", lambda _: ran(0.5), asked, batch=64),
        started("other batches", lambda _: ran(1.0), asked, batch=64),
    ]
    report = measure(setup(tmp_path), workers, rounds=1, quick=True)
    # Both do as many steps in their round, as both had the same rate in a warm-up of as many.
    assert report["batches"]["stepwell_is_times"]["median"] == 1
    assert report["other batches"]["steps_per_second"]["median"] < report["batches"]["steps_per_second"]["median"]
    assert report["other batches"]["stepwell_is_times"]["median"] == pytest.approx(
        report["batches"]["steps_per_second"]["median"] / report["other batches"]["steps_per_second"]["median"]
    )


def test_more_groups_acknowledged_than_syncs_fail_the_run(tmp_path: Path) -> None:
    liar = started("liar", lambda n: ran(0.01, groups=3, syncs=3 if n < 2 else 2), [])
    with pytest.raises(UncountedGroups, match="liar: 3 groups, 2 syncs"):
        measure(setup(tmp_path), [liar], rounds=3, quick=False)


def test_who_promises_nothing_durable_needs_no_syncs(tmp_path: Path) -> None:
    honest = started("honest", lambda _: ran(0.01, groups=3, syncs=0), [], durable=False)
    assert measure(setup(tmp_path), [honest], rounds=1, quick=False)["honest"]["syncs_per_step"] == 0


def test_a_peer_that_fails_is_in_the_report_and_not_asked_again(tmp_path: Path) -> None:
    asked: list[str] = []
    workers = [started("good", lambda _: ran(0.01), asked), started("bad", lambda _: {"failed": "Locked: no"}, asked)]
    report = measure(setup(tmp_path), workers, rounds=2, quick=False)
    assert report["bad"] == {"failed": "Locked: no"}
    assert asked == ["good", "bad", "good", "good"]


def test_a_peer_whose_warm_up_takes_long_has_that_one_run(tmp_path: Path) -> None:
    asked: list[str] = []
    workers = [started("quick", lambda _: ran(0.01), asked), started("slow", lambda _: ran(4.0), asked)]
    report = measure(setup(tmp_path), workers, rounds=2, quick=False)
    assert asked == ["quick", "slow", "quick", "quick"]
    assert report["slow"]["runs"] == 1
    assert report["slow"]["steps_per_second"]["median"] == pytest.approx(20 / 4.0)


def test_disk_used_is_what_the_files_take_when_the_work_is_done(tmp_path: Path) -> None:
    worker, hello = started("writer", lambda _: ran(0.01), [])
    ask = worker.ask

    def writing(**request: object) -> dict[str, object]:
        (Path(str(request["path"])) / "file").write_bytes(b"x" * 8192)
        return ask(**request)

    worker.ask = writing  # type: ignore[method-assign]
    report = measure(setup(tmp_path), [(worker, hello)], rounds=1, quick=True)
    steps = report["writer"]["steps_per_episode"]
    assert report["writer"]["disk_per_step"] == pytest.approx(8192 / steps)
    assert not list(tmp_path.iterdir())  # nothing is left of it
