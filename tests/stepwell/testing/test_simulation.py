"""A simulated world follows from its seed, loses at a power cut what was not durable, and ends."""

from __future__ import annotations

import time

import pytest
import trio

from stepwell import NotFound, OutcomeUnknown
from stepwell.testing import Simulation, StuckError
from tests.support import step


async def log_and_lose_power(simulation: Simulation, *, power_cut: bool = True) -> int:
    """Steps that are left of ten, of which the first five were durable."""
    async with simulation.open_memory() as memory:
        handle = await memory.start_episode("task", episode_id="e")
        for number in range(5):
            await handle.log_step(step(number))
        await handle.flush()
        for number in range(5, 10):
            await handle.log_step(step(number))
        simulation.cut_power() if power_cut else simulation.kill()
    async with simulation.open_memory() as memory:
        found = await memory.get_episode("e")
        assert [item.parameters["n"] for item in found.steps] == list(range(len(found.steps)))
        return len(found.steps)


def test_one_seed_is_one_world_and_another_seed_another() -> None:
    def run(seed: int) -> tuple[str, list[str]]:
        simulation = Simulation(seed)
        simulation.run(lambda: log_and_lose_power(simulation))
        return simulation.digest, simulation.trace

    assert run(1) == run(1)
    assert run(1)[0] != run(2)[0]


@pytest.mark.parametrize("power_cut", [True, False])
def test_what_was_durable_is_left_and_what_had_not_left_memory_is_not(power_cut: bool) -> None:
    for seed in range(10):
        simulation = Simulation(seed)
        assert simulation.run(lambda s=simulation: log_and_lose_power(s, power_cut=power_cut)) == 5  # type: ignore[misc]


def test_nothing_takes_real_time_and_the_clocks_are_given_back() -> None:
    simulation = Simulation(1)

    async def main() -> int:
        before = time.time_ns()
        await trio.sleep(5000)
        return time.time_ns() - before

    began, clock = time.perf_counter(), time.time_ns
    assert round(simulation.run(main) / 1e9) == 5000
    assert time.perf_counter() - began < 60
    assert time.time_ns is clock


def test_a_run_that_comes_to_rest_is_stuck_and_tells_where() -> None:
    simulation = Simulation(1, longest_seconds=100)

    async def hang_for_good() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    with pytest.raises(StuckError, match="hang_for_good"):
        simulation.run(hang_for_good)


def test_a_run_that_goes_round_in_circles_is_stuck() -> None:
    async def main() -> None:
        while True:
            await trio.lowlevel.checkpoint()

    with pytest.raises(StuckError, match="5,000 steps"):
        Simulation(1, most_steps=5000).run(main)


def test_a_call_in_a_simulated_thread_is_finished_although_its_caller_is_cancelled() -> None:
    simulation = Simulation(1, seconds_of_io=lambda: 1.0)
    made: list[int] = []

    async def main() -> None:
        with trio.move_on_after(0.5) as scope:
            await trio.to_thread.run_sync(made.append, 1)
            assert made == [1]  # told the result, and cancelled at the next checkpoint
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert trio.current_time() == 2.0

    simulation.run(main)


def test_a_memory_of_a_process_that_is_dead_does_not_reach_the_disk_any_more() -> None:
    simulation = Simulation(1)

    async def main() -> None:
        async with simulation.open_memory() as memory:
            simulation.kill()
            await memory.start_episode("task", episode_id="e")
        async with simulation.open_memory() as memory:
            with pytest.raises(NotFound):
                await memory.get_episode("e")

    simulation.run(main)


def test_an_error_leaves_as_it_is() -> None:
    async def main() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Simulation(1).run(main)


def test_the_medium_can_be_made_to_fail() -> None:
    def fail(call: object) -> None:
        if str(call).startswith("datasync 0"):
            raise OSError(5, "EIO")

    simulation = Simulation(1)

    async def main() -> None:
        async with simulation.open_memory() as memory:
            handle = await memory.start_episode("task")
            simulation.before = fail
            receipt = await handle.log_step(step(1))
            with pytest.raises(OutcomeUnknown):
                await receipt.wait_durable()
            simulation.before = lambda call: None

    simulation.run(main)
