"""Events: the envelope of a record, with its data decoded when it is asked for."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from stepstore.journal import Batch
from stepstore.log.memory_files import MemoryFileSystem
from stepwell import EpisodeUnavailable, Event, ExecutionStep, Gap, StepError, Success, open_memory
from stepwell.model.codec import encode_step, event_data
from stepwell.model.ids import stream_id
from stepwell.model.limits import Limits
from tests.support import force_into_log, open_on, step


def event(payload: bytes = b"payload", *, stream: str = "e", lsn: int = 7, decoded: list[bytes] | None = None) -> Event:
    def decode(data: bytes, _what: str) -> dict[str, Any]:
        if decoded is not None:
            decoded.append(data)
        return {"is": data}

    return Event(stream, "step", 3, lsn, 1_700_000_000_123_456_789, 1, payload, decode, lambda at: f"behind {at}")


def test_data_is_decoded_once_and_only_if_it_is_asked_for() -> None:
    decoded: list[bytes] = []
    one = event(decoded=decoded)
    looked_at = (repr(one), hash(one), one == event(), one.cursor, one.time)
    assert all(looked_at[:2])
    assert decoded == []
    assert one.data == {"is": b"payload"}
    assert one.data is one.data
    assert decoded == [b"payload"]


def test_events_are_equal_that_are_the_same_record() -> None:
    assert event() == event()
    assert hash(event()) == hash(event())
    assert len({event(), event(), event(lsn=8)}) == 2
    for other in (event(b"other"), event(stream="f"), event(lsn=8), "no event", None):
        assert event() != other
    one = event()
    assert one.data
    assert one == event()  # whether it was decoded does not matter


def test_an_event_shows_where_it_stands_and_not_what_it_says() -> None:
    shown = repr(event(b"a secret"))
    assert shown == "Event('step', stream='e', seq=3, lsn=7, time=2023-11-14T22:13:20.123456Z)"


def test_times_are_aware_and_to_the_nanosecond_beside() -> None:
    one = event()
    assert one.time == dt.datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=dt.UTC)
    assert one.time.utcoffset() == dt.timedelta(0)
    assert one.time_ns == 1_700_000_000_123_456_789
    assert one.cursor == "behind 7"


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        event().seq = 5  # type: ignore[misc]


async def test_the_data_of_every_kind_is_a_json_object() -> None:
    async with open_memory(":memory:") as memory:
        handle = await memory.start_episode("task", episode_id="e", agent="a", metadata={"k": 1})
        await handle.log_step(step(1, tokens_used=5, thought="hm", key="key"))
        await handle.log_step(ExecutionStep("tool", result=StepError("no")))
        await handle.complete(Success("fine"), metadata={"m": 2})
        async with memory.follow() as following:
            events = [await following.receive() for _ in range(4)]
        found = []
        for item in events:
            assert not isinstance(item, Gap)
            found.append(item)
        await memory.delete_episode("e")
        started, first, second, ended = found
        assert (started.data["task"], started.data["agent"], started.data["metadata"]) == ("task", "a", {"k": 1})
        assert first.data == {
            "tool": "tool",
            "action": "action 1",
            "parameters": {"n": 1},
            "result": {"status": "success", "output": "output 1"},
            "latency_ms": None,
            "tokens_used": 5,
            "reward": None,
            "thought": "hm",
            "metadata": {},
            "step_number": None,
        }
        assert second.data["result"] == {"status": "error", "message": "no"}
        assert ended.data["outcome"]["verdict"] == "fine"


async def test_an_event_whose_envelope_is_sound_and_whose_data_is_not_says_so_when_it_is_asked() -> None:
    """An ordinary step is known by its first bytes; what follows them may be anything."""
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await memory.start_episode("task", episode_id="e")
    whole = encode_step(step(1), 5, Limits())
    broken = [whole[:-1], whole + b"\xf6", whole[:-5] + b"\xff" * 5]
    await force_into_log(files, Batch(stream_id("episode", "e"), 2, broken, 0))
    async with open_on(files) as memory, memory.follow() as following:
        await following.receive()
        for number, payload in enumerate(broken, 2):
            item = await following.receive()
            assert isinstance(item, Event)
            assert (item.kind, item.seq, item.time_ns) == ("step", number, 5)
            for _ in range(2):
                with pytest.raises(EpisodeUnavailable, match=f"record {number} of episode 'e'") as caught:
                    item.data  # noqa: B018
                assert caught.value.reason == "undecodable"
            with pytest.raises(EpisodeUnavailable):
                event_data(payload, "it")
