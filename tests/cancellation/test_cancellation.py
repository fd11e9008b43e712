"""The cancellation sweep: nothing public is left out, and its judge objects when the contract is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import trio

from stepwell import Closed, EpisodeHandle, Memory, Receipt, Success, open_memory
from stepwell.memory import handle as handle_module
from stepwell.memory.handle import StepScope
from stepwell.memory.run_scope import RunningEpisode, RunScope
from stepwell.model.outcome import TaskOutcome
from stepwell.runtime.receipt import Commit
from stepwell.runtime.runtime import Runtime
from tests.cancellation.scenarios import SCENARIOS
from tests.cancellation.sweep import Around, Sweeper, Variant
from tests.cancellation.told import Fate, Logged, Told, judge
from tests.crash.repeatable import deterministic
from tests.public_surface import public_async_functions
from tests.support import step


@pytest.fixture
def sweeper() -> Iterator[Sweeper]:
    with deterministic() as dice:
        yield Sweeper(dice)


def test_every_public_async_function_is_in_a_scenario(sweeper: Sweeper) -> None:
    called = set[str]().union(*(sweeper.functions_called(scenario) for scenario in SCENARIOS.values()))
    missing = public_async_functions().keys() - called
    assert not missing, f"write a scenario in tests/cancellation/scenarios.py for {sorted(missing)}"
    assert len(SCENARIOS) >= 20


def test_the_public_surface_is_found_by_looking() -> None:
    found = public_async_functions().keys()
    assert found >= {
        "OpenMemory.__aenter__",
        "Memory.log_step",
        "EpisodeHandle.log_step",
        "Receipt.wait_durable",
        "RunScope.__aexit__",
        "StepScope.__aexit__",
        "EpisodeEvents.__anext__",
        "EventChannel.receive",
    }


def test_a_run_repeated_is_the_same_run(sweeper: Sweeper) -> None:
    for slow in (False, True):
        variant = Variant(Around.CALLS, slow, 7)
        scenario = SCENARIOS["many-callers-of-one-episode"]
        assert sweeper.run(scenario, variant, 31) == sweeper.run(scenario, variant, 31)


Patch = Callable[[pytest.MonkeyPatch], None]


def _cancelled_between_acceptance_and_return(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(handle_module, "cancel_shielded_checkpoint", trio.lowlevel.checkpoint)


def _unshielded_ending(patch: pytest.MonkeyPatch) -> None:
    async def write(self: RunScope, handle: RunningEpisode, outcome: TaskOutcome) -> None:
        self.completed = await handle.complete(outcome)

    patch.setattr(RunScope, "_write", write)


def _unshielded_runtime(patch: pytest.MonkeyPatch) -> None:
    initialise = Runtime.__init__

    def unshielded(self: Runtime, *arguments: Any, **options: Any) -> None:
        initialise(self, *arguments, **options)
        self._scope.shield = False

    patch.setattr(Runtime, "__init__", unshielded)


def _step_lost_on_leaving(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: StepScope, step: object, error: BaseException) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()

    patch.setattr(StepScope, "_log_in_time", nothing)


def _swallowed(patch: pytest.MonkeyPatch) -> None:
    wait = Receipt.wait_durable

    async def swallowing(self: Receipt) -> None:
        with suppress(trio.Cancelled):
            await wait(self)

    patch.setattr(Receipt, "wait_durable", swallowing)


def _replaced(patch: pytest.MonkeyPatch) -> None:
    flush = Memory.flush

    async def replacing(self: Memory) -> None:
        try:
            await flush(self)
        except trio.Cancelled:
            raise Closed("it was cancelled") from None

    patch.setattr(Memory, "flush", replacing)


def _no_checkpoint(patch: pytest.MonkeyPatch) -> None:
    async def resume(self: Memory, episode_id: str) -> EpisodeHandle:
        return self.handle(episode_id)

    patch.setattr(Memory, "resume", resume)


def _task_left(patch: pytest.MonkeyPatch) -> None:
    flush = Memory.flush

    async def leaving(self: Memory) -> None:
        trio.lowlevel.spawn_system_task(trio.sleep_forever)
        await flush(self)

    patch.setattr(Memory, "flush", leaving)


def _waits_for_ever(patch: pytest.MonkeyPatch) -> None:
    resolve = Commit.resolve

    def forgetful(self: Commit, first_lsn: int, error: Any) -> None:
        self._waiter = self._more_waiters = None
        resolve(self, first_lsn, error)

    patch.setattr(Commit, "resolve", forgetful)


def _ending_taken_back(patch: pytest.MonkeyPatch) -> None:
    """Cancelling the caller gives up the ending."""
    complete = Memory.complete_episode

    async def taking_back(self: Memory, episode_id: str, *arguments: Any, **options: Any) -> Any:
        try:
            return await complete(self, episode_id, *arguments, **options)
        except trio.Cancelled:
            cell = self._cells.get(episode_id)
            if cell is not None and cell.ending_request is not None:
                cell.ending_request.outcome = Success("something else")
            raise

    patch.setattr(Memory, "complete_episode", taking_back)


@pytest.mark.parametrize(
    ("scenario", "around", "slow", "damage", "objection"),
    [
        ("logging", Around.CALLS, False, _cancelled_between_acceptance_and_return, "is there twice"),
        ("logging", Around.MEMORY, False, _cancelled_between_acceptance_and_return, "said that it is not stored"),
        ("run-scopes", Around.CALLS, False, _unshielded_ending, "no ending"),
        ("batches", Around.MEMORY, True, _unshielded_runtime, "the memory was closed before"),
        ("step-scopes", Around.CALLS, False, _step_lost_on_leaving, "was accepted and is missing"),
        ("logging", Around.CALLS, True, _swallowed, "Cancelled was swallowed"),
        ("flushing", Around.CALLS, True, _replaced, "Cancelled was replaced"),
        ("waking", Around.CALLS, True, _no_checkpoint, "no checkpoint"),
        ("flushing", Around.MEMORY, False, _task_left, "tasks are left"),
        ("starting", Around.CALLS, False, _waits_for_ever, "TooSlowError"),
        ("completing", Around.CALLS, True, _ending_taken_back, "something else"),
    ],
)
def test_the_sweep_objects_to_a_broken_contract(
    sweeper: Sweeper,
    monkeypatch: pytest.MonkeyPatch,
    scenario: str,
    around: Around,
    slow: bool,
    damage: Patch,
    objection: str,
) -> None:
    chosen, variant = SCENARIOS[scenario], Variant(around, slow, 1)
    assert not sweeper.run(chosen, variant, 12).violations
    damage(monkeypatch)
    said: list[str] = []
    for _at, ran in sweeper.sweep(chosen, variant):
        said += ran.violations
        if any(objection in text for text in said):
            return
    pytest.fail(f"it did not object: {said[:3]}")


async def test_the_judge_objects_to_every_kind_of_untruth() -> None:
    """Each time another story is told of one and the same memory."""
    async with open_memory(":memory:") as memory:
        handle = await memory.start_episode("task of e", episode_id="e")
        for number in range(3):
            await handle.log_step(step(number))
        await handle.complete(Success("done"))
        shown = {"e": await handle.get()}

    def story(*fates: Fate, by: str = "me", seqs: Sequence[int | None] = (2, 3, 4), **known: Any) -> list[str]:
        logged = [
            Logged(by, (f"action {n}",), fate, seq) for n, (fate, seq) in enumerate(zip(fates, seqs, strict=True))
        ]
        fields: dict[str, Any] = {"start": Fate.STORED, "ending": Fate.STORED, "outcome": Success("done")}
        return judge({"e": Told(logged=logged, **fields | known)}, shown)

    stored, unknown, never = Fate.STORED, Fate.UNKNOWN, Fate.NEVER
    assert story(stored, stored, stored) == []
    assert story(stored, unknown, stored, seqs=(2, None, 4)) == []
    assert "said that it is not stored" in story(stored, never, stored)[0]
    assert "its receipt says 5" in story(stored, stored, stored, seqs=(2, 3, 5))[0]
    assert "nobody has logged it" in story(stored, stored, seqs=(2, 3))[0]
    assert "'action 3' was accepted and is missing" in story(*[stored] * 4, seqs=(2, 3, 4, 5))[0]
    assert "it ended with" in story(stored, stored, stored, outcome=Success("other"))[0]
    assert "nobody asked for" in story(stored, stored, stored, ending=never)[0]
    assert "it was deleted" in story(stored, stored, stored, deletion=stored)[0]
    assert "its start was refused" in story(stored, stored, stored, start=never)[0]
    backwards = [Logged("me", (f"action {n}",), stored) for n in (1, 0, 2)]
    ended: dict[str, Any] = {"start": stored, "ending": stored, "outcome": Success("done")}
    assert "behind a later call" in judge({"e": Told(logged=backwards, **ended)}, shown)[0]
    batch = [Logged("me", ("action 0", "action 2"), stored), Logged("you", ("action 1",), stored)]
    assert "are one batch" in judge({"e": Told(logged=batch, **ended)}, shown)[0]
    assert "nobody has started it" in judge({}, shown)[0]
    assert "is missing" in judge({"e": Told(start=stored), "f": Told(start=stored)}, {})[1]
    still_open = {"e": msgspec.structs.replace(shown["e"], outcome=None)}
    three = [Logged("me", (f"action {n}",), stored) for n in range(3)]
    assert "is missing" in judge({"e": Told(logged=three, **ended)}, still_open)[0]
    assert "run scope is over" in judge({"e": Told(logged=three, start=stored, is_run=True)}, still_open)[0]
