"""Every way of `bench peers` in a process of its own, with the syncs counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.peers.names import PEERS, WAYS
from bench.peers.process import Died, Worker
from bench.peers.shim import NoCompiler, compile_shim

STEPS = 64  # a batch, and more than sixty
KEEPS_NOTHING = {name for name in WAYS if "memory" in name}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return compile_shim(tmp_path_factory.mktemp("shim"))
    except NoCompiler as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest, library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    errors = tmp_path_factory.mktemp("errors") / "errors"
    with Worker(request.param, library, errors) as worker:
        hello = worker.hello()
        if "missing" in hello:
            pytest.skip(f"{request.param}: {hello['missing']}; `make .venv/.installed-bench` installs the peers")
        worker.hello_said = hello  # type: ignore[attr-defined]
        yield worker


def _ingest(worker: Worker, path: Path, episodes: int = 1, do: str = "ingest") -> dict[str, Any]:
    path.mkdir()
    found = worker.ask(do=do, path=str(path), episodes=episodes, steps=STEPS, size=300, delay_ns=0)
    assert "failed" not in found, found
    return found


def _read(worker: Worker, path: Path) -> int:
    found = worker.ask(do="read", path=str(path), times=1)
    assert "failed" not in found, found
    return int(found["found"])


def test_what_was_acknowledged_is_read_back_and_every_group_was_synced(way: Worker, tmp_path: Path) -> None:
    durable = way.hello_said["durable"]  # type: ignore[attr-defined]
    found = _ingest(way, tmp_path / "store", episodes=3)
    assert _read(way, tmp_path / "store") == (0 if way.name in KEEPS_NOTHING else STEPS)
    if durable:
        assert 0 < found["groups"] <= found["syncs"]
        assert found["bytes"] >= 3 * STEPS * 250
    elif way.name in KEEPS_NOTHING:
        assert found["syncs"] == 0


def test_each_step_is_made_once_and_in_turn(way: Worker, tmp_path: Path) -> None:
    laps = _ingest(way, tmp_path / "store", do="laps")["laps"]
    assert len(laps) == STEPS + 1
    assert laps == sorted(laps, key=lambda lap: lap[0])


def test_what_was_acknowledged_as_durable_survives_kill_9(
    way: Worker, library: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    durable = way.hello_said["durable"]  # type: ignore[attr-defined]
    with Worker(way.name, library, tmp_path_factory.mktemp("errors") / "errors") as victim:
        victim.hello()
        with pytest.raises(Died, match="exit code -9"):
            _ingest(victim, tmp_path / "store", do="die")
    if durable:
        assert _read(way, tmp_path / "store") == STEPS


def test_deleted_text_is_looked_for_where_it_was(way: Worker, tmp_path: Path) -> None:
    _ingest(way, tmp_path / "store", episodes=3)
    found = way.ask(do="delete", path=str(tmp_path / "store"))
    assert "failed" not in found, found
    assert bool(found["before"]) is (way.name not in KEEPS_NOTHING)  # or the search would not find it later either
    if way.name == "Stepwell, purge":
        assert found["after"] == found["closed"] == []
    if way.name == "Stepwell, acknowledged":
        assert found["after"] == found["closed"] == found["before"]
    if "no_delete" in found or way.name in KEEPS_NOTHING:
        return
    with_two_left = way.ask(do="read", path=str(tmp_path / "store"), times=1)
    assert with_two_left.get("found", 0) == 0  # it was the first that went, or is unknown now


def test_every_peer_of_the_tables_has_a_way() -> None:
    assert set(PEERS) <= set(WAYS)
