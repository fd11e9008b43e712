"""Checkpoints, handoff packs, and going on from them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    BatchConfig,
    ExecutionStep,
    HandoffPack,
    InvalidInput,
    InvalidState,
    Memory,
    MemoryConfig,
    NotFound,
    Pattern,
    StepError,
    StepSuccess,
    Success,
    TaskContext,
    TooLarge,
)
from tests.support import SEGMENT_BYTES, open_on, step

CONTEXT = TaskContext(language="python", framework="trio", domain="größe", complexity="complex", tags=["net"])


async def run(memory: Memory) -> str:
    """An episode with three steps, a checkpoint, and one more step. Gives the checkpoint's id."""
    handle = await memory.start_episode(
        "Aufgabe",
        episode_id="old@1",
        context=CONTEXT,
        task_type="debugging",
        agent="ann",
        thread="t",
        metadata={"m": 1},
    )
    await handle.log_step(ExecutionStep("search", "find ü", {"n": 2**70, "x": 1.5}, StepError("boom"), latency_ms=2.5))
    await handle.log_step(ExecutionStep("read", "it", {}, StepSuccess({"rows": [1, None]}), thought="so"))
    await handle.log_step(ExecutionStep("write", "", {}, StepError("denied")))
    place = await memory.checkpoint("old@1", "pause", note="Nur noch schreiben", actor="ann")
    await handle.log_step(step(9))
    assert (place.seq, place.steps, place.episode_id, place.reason) == (5, 3, "old@1", "pause")
    return place.checkpoint_id


async def test_a_checkpoint_makes_everything_before_it_durable_and_is_found_after_opening_again() -> None:
    files = MemoryFileSystem()
    config = MemoryConfig(batch=BatchConfig.manual(), segment_bytes=SEGMENT_BYTES)
    async with open_on(files, config) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        receipts = [await handle.log_step(step(number)) for number in range(100)]
        assert not receipts[-1].is_durable
        place = await memory.checkpoint("e", "why", note="ü", actor="ann")
        assert all(receipt.is_durable for receipt in receipts)
        assert (place.steps, place.seq) == (100, 102)
    async with open_on(files) as memory:
        episode = await memory.get_episode("e")
        assert episode.checkpoints == [place]
        assert (await memory.handoff(place.checkpoint_id)).steps == episode.steps


async def test_a_pack_is_complete_and_the_same_in_json_and_back() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        pack = await memory.handoff(await run(memory))
        episode = await memory.get_episode("old@1")
        assert pack.steps == episode.steps[:3]
        assert (pack.task_description, pack.task_type, pack.agent, pack.thread) == ("Aufgabe", "debugging", "ann", "t")
        assert (pack.context, pack.metadata) == (CONTEXT, {"m": 1})
        assert pack.what_worked == ["read: it"]
        assert pack.what_failed == ["search: find ü: boom", "write: denied"]
        assert pack.salient_facts[-1] == "Nur noch schreiben"
        assert len(pack.salient_facts) == 2
        assert pack.suggested_next_steps == ["Look first at the last step, which failed: write"]
        assert HandoffPack.from_json(pack.to_json()) == pack
        assert HandoffPack.from_json(msgspec.json.encode(pack)) == pack
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(pack.what_worked)) == pack.what_worked
        assert type(HandoffPack.from_json(pack.to_json()).steps[0].parameters["n"]) is int


async def test_going_on_keeps_the_task_and_leads_back() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        pack = await memory.handoff(await run(memory))
        await memory.add_tags("old@1", ["later"])
        handle = await memory.continue_from(pack, agent="bob", metadata={"own": 1}, actor="boss", episode_id="new")
        again = await memory.continue_from(pack, agent="bob", metadata={"own": 1}, episode_id="new")
        assert again.id == handle.id == "new"
        await handle.log_step(step(1))
        new = await memory.get_episode("new")
        assert (new.task_description, new.context, new.task_type, new.thread) == ("Aufgabe", CONTEXT, "debugging", "t")
        assert (new.agent, new.parent) == ("bob", "old@1")
        assert new.metadata == {"own": 1, "continued_from": pack.checkpoint.checkpoint_id}
        (edge,) = await memory.related("new")
        assert (edge.to_episode, edge.kind, edge.reason, edge.actor) == ("old@1", "follows", "pause", "boss")
        assert [item.from_episode for item in await memory.related("old@1", direction="in")] == ["new"]
        assert (await memory.get_episode("old@1")).status == "open"
        assert (await memory.continue_from(pack)).id not in ("new", "old@1")
    async with open_on(MemoryFileSystem()) as elsewhere:
        moved = await elsewhere.continue_from(HandoffPack.from_json(pack.to_json()), episode_id="moved")
        assert (await moved.get()).parent == "old@1"
        assert (await moved.get()).agent == "ann"
        assert await elsewhere.related("moved") == []


async def test_half_of_it_failing_suggests_to_break_the_task_down() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        for number in range(6):
            result = StepError("no") if number < 4 else StepSuccess("yes")
            await handle.log_step(ExecutionStep("tool", f"{number}", {}, result))
        pack = await memory.handoff((await memory.checkpoint("e", "why")).checkpoint_id)
        assert pack.suggested_next_steps == ["Break the task down: fewer than half of the steps succeeded"]


async def test_what_cannot_be_handed_over_is_refused() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        for reason in ("", " ", 5, "\ud800"):
            with pytest.raises(InvalidInput, match="reason"):
                await memory.checkpoint("e", reason)  # type: ignore[arg-type]
        with pytest.raises(TooLarge, match="note: 5,001 bytes"):
            await memory.checkpoint("e", "why", note="ü" * 2500 + "x")
        assert memory.stats().records == 1
        place = await memory.checkpoint("e", "why")
        for checkpoint_id in ("", "e", "@e", "x@e", "²@e", "9" * 30 + "@e", 5, "1@"):
            with pytest.raises(InvalidInput, match="checkpoint_id"):
                await memory.handoff(checkpoint_id)  # type: ignore[arg-type]
        for checkpoint_id in ("1@e", "2@nope", "99@e"):
            with pytest.raises(NotFound):
                await memory.handoff(checkpoint_id)
        pack = await memory.handoff(place.checkpoint_id)
        await handle.complete(Success())
        with pytest.raises(InvalidState, match="has ended; a checkpoint, a place to go on from, is of an open episode"):
            await memory.checkpoint("e", "why")
        assert await memory.handoff(place.checkpoint_id) == pack
        for text in ("", "{}", "[]", "nonsense", pack.to_json().replace('"version": 1', '"version": 2'), "[" * 100_000):
            with pytest.raises(InvalidInput, match="pack"):
                HandoffPack.from_json(text)
        with pytest.raises(InvalidInput, match="version 2"):
            await memory.continue_from(msgspec.structs.replace(pack, version=2))
        await memory.delete_episode("e")
        with pytest.raises(NotFound):
            await memory.handoff(place.checkpoint_id)


async def teach(memory: Memory, count: int = 3, domain: str = "sea", prefix: str = "") -> None:
    """Episodes that looked for a hole with `inspect`, failed to `sew` and then used `tar`, and succeeded."""
    for number in range(count):
        handle = await memory.start_episode(
            f"mend the net {number}", domain=domain, episode_id=f"{prefix}{domain}{number}"
        )
        await handle.log_step(ExecutionStep("inspect", "check whether the net has a hole", {}, StepSuccess("yes")))
        for _ in range(2):
            await handle.log_step(ExecutionStep("sew", "close it", {}, StepError("needle broke")))
        await handle.log_step(ExecutionStep("tar", "cover it", {}, StepSuccess("done")))
        await handle.complete(Success("mended"))


async def pack_for(memory: Memory, task: str, domain: str = "sea", done: str = "sew close it") -> HandoffPack:
    handle = await memory.start_episode(task, domain=domain)
    tool, _, action = done.partition(" ")
    await handle.log_step(ExecutionStep(tool, action, {}, StepSuccess("closed")))
    return await memory.handoff((await memory.checkpoint(handle.id, "why")).checkpoint_id)


async def test_a_pack_holds_what_other_episodes_of_its_domain_have_taught() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await teach(memory)
        await teach(memory, domain="land")
        pack = await pack_for(memory, "look for a hole in the net")
        assert 0 < len(pack.relevant_patterns) <= 5
        assert {pattern.domain for pattern in pack.relevant_patterns} == {"sea"}
        assert not {pattern.kind for pattern in pack.relevant_patterns} & {"loop", "dead_end"}
        learned = await memory.patterns(domain="sea")
        assert "loop" in {pattern.kind for pattern in learned[:6]}
        assert [it.pattern_id for it in pack.relevant_patterns] == [
            it.pattern_id for it in learned if it.kind not in ("loop", "dead_end")
        ][:5]
        assert any("hole" in rule.condition for rule in pack.relevant_heuristics)
        assert any("inspect check" in line for line in pack.suggested_next_steps)
        assert not any("sew close" in line for line in pack.suggested_next_steps)  # it was done
        assert len(pack.suggested_next_steps) <= 5
        assert HandoffPack.from_json(pack.to_json()) == pack
        assert pack.not_learned == ""
        other = await pack_for(memory, "paint a boat", done="inspect check it")
        assert any("tar cover" in line for line in other.suggested_next_steps)
        assert not any("inspect check" in line for line in other.suggested_next_steps)
        assert other.relevant_heuristics == []
        assert other.relevant_patterns != []
        nothing = await pack_for(memory, "look for a hole", domain="air")
        assert (nothing.relevant_patterns, nothing.suggested_next_steps) == ([], [])


async def test_what_only_the_episode_itself_shows_is_no_part_of_its_pack() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await teach(memory, 1)
        handle = await memory.start_episode("mend the net", domain="sea", episode_id="own")
        for tool in ("haul", "stow"):
            await handle.log_step(ExecutionStep(tool, "now", {}, StepSuccess("ok")))
        place = await memory.checkpoint("own", "why")
        before = await memory.handoff(place.checkpoint_id)
        await handle.complete(Success())
        after = await memory.handoff(place.checkpoint_id)
        assert any("haul" in pattern.text for pattern in await memory.patterns(domain="sea"))
        assert before.relevant_patterns
        assert after.relevant_patterns
        assert not any("haul" in pattern.text for pattern in after.relevant_patterns)


async def test_a_pattern_that_others_show_by_the_time_it_is_looked_at_is_part_of_the_pack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await teach(memory, 1)
        patterns = Memory.patterns

        async def and_then_another_ends(self: Memory, **filters: Any) -> list[Pattern]:
            found = await patterns(self, **filters)
            monkeypatch.undo()
            await teach(self, 1, prefix="again")
            return found

        task = await memory.start_episode("look for a hole in the net", domain="sea")
        place = await memory.checkpoint(task.id, "why")
        monkeypatch.setattr(Memory, "patterns", and_then_another_ends)
        pack = await memory.handoff(place.checkpoint_id)
        assert any(pattern.episodes == 1 for pattern in pack.relevant_patterns)
        assert not {pattern.kind for pattern in pack.relevant_patterns} & {"loop", "dead_end"}


async def test_what_is_deleted_is_no_part_of_a_pack() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await teach(memory, 2)
        for number in range(2):
            await memory.delete_episode(f"sea{number}")
        pack = await pack_for(memory, "look for a hole in the net")
        assert (pack.relevant_patterns, pack.relevant_heuristics) == ([], [])


async def test_without_its_learner_a_memory_hands_over_all_the_same_and_says_so() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await teach(memory)
        memory._runtime.projections.learning.projector.park(OSError("no space"))
        pack = await pack_for(memory, "look for a hole in the net")
        assert "no space" in pack.not_learned
        assert [step.tool for step in pack.steps] == ["sew"]
        assert HandoffPack.from_json(pack.to_json()) == pack
