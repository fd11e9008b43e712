"""Row 14: a record whose frame is sound and that is none of ours hurts its own episode, and nothing else."""

from __future__ import annotations

import cbor2
import pytest
import trio

from stepstore.journal import Batch, SegmentLogJournal
from stepstore.log.memory_files import MemoryFileSystem
from stepwell import START, EpisodeUnavailable, Event, Gap, Success
from stepwell.model.codec import PLAIN_STEP
from stepwell.model.ids import stream_id
from tests.support import LOG, open_on, step

LATE_STEP = PLAIN_STEP + b"\xff" * 8 + cbor2.dumps(["tool", "act", {}, None, None]) + b"\xf6"
FOREIGN = {
    "no CBOR": b"\xff",
    "another form": cbor2.dumps("a text"),
    "no data of ours": cbor2.dumps([1, "step", 1, 5, None]),
    "no meta of ours": cbor2.dumps([1, "step", 1, ["tool", "act", {}, None, None], 5]),
    "a key of no text": cbor2.dumps([1, "step", 1, ["tool", "act", {}, None, None], {"key": 5}]),
    "a step beyond all times": LATE_STEP,
    "a newer version": cbor2.dumps([9, "step", 1, {}, None]),
}


async def with_a_foreign_record(payload: bytes) -> MemoryFileSystem:
    """Episodes "good" and "bad" of two steps each; of "bad", records 4 and 6 are sound and 5 is the payload."""
    return await with_foreign_records([payload, None])


async def with_foreign_records(payloads: list[bytes | None]) -> MemoryFileSystem:
    """The same, with these payloads from record 5 of "bad" on; for None, a copy of record 4."""
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        for name in ("good", "bad"):
            handle = await memory.start_episode("task", episode_id=name)
            for n in range(3 if name == "bad" else 2):
                await handle.log_step(step(n))
    journal = SegmentLogJournal.open(LOG, files=files)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        stream = stream_id("episode", "bad")
        copied = (await journal.read(stream).next_slice())[-1].payload
        await journal.submit([Batch(stream, 5, [it or copied for it in payloads], 0)]).wait()
        journal.finish()
    journal.release()
    return files


@pytest.mark.parametrize("payload", FOREIGN.values(), ids=FOREIGN)
async def test_an_episode_with_a_record_of_another_form_is_unavailable_and_readable_up_to_it(payload: bytes) -> None:
    files = await with_a_foreign_record(payload)
    async with open_on(files) as memory:
        with pytest.raises(EpisodeUnavailable) as caught:
            await memory.get_episode("bad")
        assert caught.value.reason == "undecodable"
        assert len((await memory.get_episode("bad", partial=True)).steps) == 3
        with pytest.raises(EpisodeUnavailable):
            await memory.log_step("bad", step(9))
        good = await memory.resume("good")
        await good.log_step(step(2))
        await good.complete(Success("done"))
        assert len((await good.get()).steps) == 3


@pytest.mark.parametrize("before", [[], [FOREIGN["another form"]]], ids=["by itself", "behind something else"])
async def test_a_step_beyond_all_times_hurts_no_list_of_episodes(before: list[bytes]) -> None:
    files = await with_foreign_records([*before, LATE_STEP])
    async with open_on(files) as memory:
        await (await memory.resume("good")).complete(Success("done"))
        with trio.fail_after(60):
            page = await memory.list_episodes(at_least=memory._journal.durable_lsn)
        assert {it.episode_id: it.status for it in page.items} == {"good": "ended", "bad": "open"}


async def test_a_follower_is_given_a_gap_in_the_place_of_a_record_of_another_form_and_everything_else() -> None:
    files = await with_a_foreign_record(FOREIGN["no CBOR"])
    async with open_on(files) as memory:
        found: list[Event | Gap] = []
        async with memory.follow(START) as events:
            while len(found) < 9:
                with trio.fail_after(100):
                    found.append(await events.receive())
    lsns = [item.first_lsn if isinstance(item, Gap) else item.lsn for item in found]
    assert lsns == list(range(1, 10))
    gaps = [item for item in found if isinstance(item, Gap)]
    assert gaps == [Gap(8, 8)]
    assert sorted(item.stream for item in found if isinstance(item, Event)) == ["bad"] * 5 + ["good"] * 3
