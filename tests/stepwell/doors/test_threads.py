"""Any thread may call `stepwell.sync`; its own thread ends with it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import stepwell.sync
from stepwell import Closed, InvalidState, LogLocked, Success
from tests.support import step


def test_many_threads_log_at_once_and_each_finds_its_steps_in_order(tmp_path: Path) -> None:
    with stepwell.sync.open_memory(tmp_path / "m") as memory:
        shared = memory.start_episode("shared", episode_id="shared")

        def agent(number: int) -> list[str]:
            with memory.episode("own", episode_id=f"e{number}") as episode:
                for count in range(100):
                    episode.log_step(step(count))
                    shared.log_step(step(number * 1_000 + count))
            return [item.action for item in memory.get_episode(f"e{number}").steps]

        with ThreadPoolExecutor(8) as pool:
            for actions in pool.map(agent, range(8)):
                assert actions == [f"action {count}" for count in range(100)]
        mixed = [int(item.action.split()[1]) for item in shared.get().steps]
        assert len(mixed) == 800
        for number in range(8):  # in the order in which each thread gave them
            assert [n % 1_000 for n in mixed if n // 1_000 == number] == list(range(100))
        shared.complete(Success())


def test_the_thread_ends_with_the_memory_whatever_ends_it(tmp_path: Path) -> None:
    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "stepwell"]

    with stepwell.sync.open_memory(tmp_path / "m"):
        assert len(threads()) == 1
        with pytest.raises(LogLocked):
            stepwell.sync.open_memory(tmp_path / "m").__enter__()
        assert len(threads()) == 1
    assert threads() == []
    with pytest.raises(ZeroDivisionError):
        with stepwell.sync.open_memory(tmp_path / "m"):
            1 / 0  # noqa: B018
    assert threads() == []


def test_a_call_that_waits_in_another_thread_is_released_when_the_memory_is_left(tmp_path: Path) -> None:
    ended: list[BaseException | str] = []
    entered = threading.Event()

    def follow(memory: stepwell.sync.Memory) -> None:
        try:
            with memory.follow(stepwell.NOW) as events:
                entered.set()
                ended.append(repr(next(events, "the end")))
        except (stepwell.OutcomeUnknown, Closed) as error:
            ended.append(error)

    with stepwell.sync.open_memory(tmp_path / "m") as memory:
        thread = threading.Thread(target=follow, args=(memory,))
        thread.start()
        entered.wait(10)
    thread.join(10)
    assert not thread.is_alive()
    assert len(ended) == 1


def test_an_opening_is_entered_once(tmp_path: Path) -> None:
    opening = stepwell.sync.open_memory(tmp_path / "m")
    with opening:
        pass
    with pytest.raises(InvalidState):
        opening.__enter__()
