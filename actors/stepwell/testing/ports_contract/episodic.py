"""The rules of runs and their events."""

from __future__ import annotations

import datetime as dt

import pytest
import trio

from stepwell.errors import InvalidInput
from stepwell.memory.ports import EpisodicMemory
from stepwell.model.run_event import (
    BusCausalLink,
    BusPublish,
    BusReceive,
    Completed,
    Failed,
    LlmCall,
    MemoryRecall,
    Ops,
    RunAttributed,
    RunEvent,
    RunOrigin,
    Started,
    SummaryCheckpoint,
    ToolCall,
    ToolErr,
    ToolOk,
)
from stepwell.model.run_event_wire import from_json, to_json
from stepwell.model.run_filter import RunFilter, RunSummary
from stepwell.testing.ports_contract.place import PlaceOfPorts, Ports, PortsPlace

EVERY_KIND: list[RunEvent] = [
    Started("planner"),
    LlmCall(tokens=9, latency_ms=120),
    LlmCall(9, 120, "openai", "gpt", 4, 5),
    ToolCall("search", {"q": "x", "a": [1, 1.5, None]}, ToolOk({"hits": []})),
    ToolCall("search", {}, ToolErr("no")),
    ToolCall("bare", "text", ToolOk(None)),
    BusPublish("x.y"),
    BusReceive("x.y"),
    SummaryCheckpoint(12, 80, 7, 300),
    Ops({"kind": "gate_decision", "tool": "rm"}),
    Ops(None),
    BusCausalLink("x.y", "run-0"),
    RunAttributed("tenant"),
    RunOrigin("anchor"),
    MemoryRecall("sky", 5, ["f1"]),
    Failed("boom"),
    Completed(),
]
UNKNOWN = ['"Suspended"', '{"Suspended":{"until":3,"why":"Käse"}}', '{"LlmCall":{"tokens":"many"}}', '{"New": [1, 2]}']
MICROSECOND = dt.timedelta(microseconds=1)


async def summary_of(episodic: EpisodicMemory, run: str) -> RunSummary:
    """What is listed of a run."""
    (found,) = [item for item in await episodic.list_runs() if item.run_id == run]
    return found


async def times_of(episodic: EpisodicMemory, run: str) -> list[dt.datetime]:
    """When its events were."""
    return [item.time async for item in episodic.iter_replay(run)]


class EpisodicContract(PlaceOfPorts):
    """The rules of runs and their events."""

    async def test_one_event_recorded_is_one_event_replayed(self, place: PortsPlace) -> None:
        """klieo's own example."""

        async def act(ports: Ports) -> None:
            await ports.episodic.record("r", Started(agent="a"))

        async def look(ports: Ports) -> None:
            assert await ports.episodic.replay("r") == [Started(agent="a")]

        await place.holds(act, look)

    async def test_events_are_replayed_in_the_order_in_which_they_were_recorded(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            async with trio.open_nursery() as nursery:
                for task in range(5):
                    nursery.start_soon(_record_several, ports.episodic, task)

        async def look(ports: Ports) -> None:
            found = [event.subject for event in await ports.episodic.replay("r") if isinstance(event, BusPublish)]
            assert len(found) == len(set(found)) == 100
            for task in range(5):
                own = [subject for subject in found if subject.startswith(f"{task}:")]
                assert own == [f"{task}:{number}" for number in range(20)]

        await place.holds(act, look)

    async def test_runs_are_apart(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            for number, run in enumerate(("a", "b", "a", "A")):
                await ports.episodic.record(run, Ops(number))

        async def look(ports: Ports) -> None:
            replayed = await ports.episodic.replay_many(["b", "a", "unknown", "A"])
            assert replayed == [("b", [Ops(1)]), ("a", [Ops(0), Ops(2)]), ("unknown", []), ("A", [Ops(3)])]

        await place.holds(act, look)

    async def test_an_unknown_run_is_empty(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.episodic.record("r", Started("a"))

        async def look(ports: Ports) -> None:
            assert await ports.episodic.replay("R") == []
            assert [item async for item in ports.episodic.iter_replay("unknown")] == []

        await place.holds(act, look)

    @pytest.mark.parametrize("together", [False, True])
    async def test_every_kind_of_event_comes_back_as_it_was(self, place: PortsPlace, together: bool) -> None:
        async def act(ports: Ports) -> None:
            if together:
                await ports.episodic.record_many("r", EVERY_KIND)
            else:
                for event in EVERY_KIND:
                    await ports.episodic.record("r", event)

        async def look(ports: Ports) -> None:
            found = await ports.episodic.replay("r")
            assert found == EVERY_KIND
            assert list(map(to_json, found)) == list(map(to_json, EVERY_KIND))

        await place.holds(act, look)

    async def test_what_is_not_known_comes_back_byte_for_byte(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            for line in UNKNOWN:
                await ports.episodic.record("r", from_json(line))

        async def look(ports: Ports) -> None:
            assert list(map(to_json, await ports.episodic.replay("r"))) == UNKNOWN

        await place.holds(act, look)

    async def test_events_recorded_together_are_stored_together_or_not_at_all(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.episodic.record_many("r", [Started("a"), Ops(1)])
            with pytest.raises(InvalidInput):
                await ports.episodic.record_many("r", [Ops(2), LlmCall(tokens=-1, latency_ms=0)])
            with pytest.raises(InvalidInput):
                await ports.episodic.record_many("new", [Started("a"), Ops(float("nan"))])

        async def look(ports: Ports) -> None:
            assert await ports.episodic.replay("r") == [Started("a"), Ops(1)]
            assert await ports.episodic.replay("new") == []
            assert len(await ports.episodic.list_runs()) == 1

        await place.holds(act, look)

    async def test_a_replay_can_begin_behind_an_event(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            receipts = [await ports.episodic.record("r", Ops(number)) for number in range(300)]
            assert [item.seq async for item in ports.episodic.iter_replay("r")] == [item.seq for item in receipts]

        async def look(ports: Ports) -> None:
            found = [item async for item in ports.episodic.iter_replay("r")]
            rest = [item async for item in ports.episodic.iter_replay("r", after=found[99].seq)]
            assert rest == found[100:]
            assert [item.event for item in rest] == [Ops(number) for number in range(100, 300)]
            assert found == sorted(found, key=lambda item: item.time_ns)

        await place.holds(act, look)

    async def test_a_run_has_finished_once_it_has_an_ending(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            for run, last in (("open", Ops(1)), ("done", Completed()), ("lost", Failed("no"))):
                await ports.episodic.record_many(run, [Started(f"agent of {run}"), Ops(0)])
                await ports.episodic.record(run, last)

        async def look(ports: Ports) -> None:
            for run, status in (("open", "running"), ("done", "completed"), ("lost", "failed")):
                found, times = await summary_of(ports.episodic, run), await times_of(ports.episodic, run)
                assert (found.agent, found.status, found.episode_count) == (f"agent of {run}", status, 3)
                assert found.started_at == times[0]
                assert found.finished_at == found.terminal_at == (None if run == "open" else times[-1])

        await place.holds(act, look)

    async def test_what_comes_behind_an_ending_is_kept_and_counted(self, place: PortsPlace) -> None:
        late = [Ops("late"), ToolCall("t", {}, ToolOk(1)), Failed("after all"), Started("again")]

        async def act(ports: Ports) -> None:
            await ports.episodic.record_many("r", [Started("a"), Completed()])
            for event in late:
                await ports.episodic.record("r", event)

        async def look(ports: Ports) -> None:
            assert await ports.episodic.replay("r") == [Started("a"), Completed(), *late]
            found, times = await summary_of(ports.episodic, "r"), await times_of(ports.episodic, "r")
            assert (found.agent, found.status, found.episode_count) == ("a", "completed", 6)
            assert (found.terminal_at, found.finished_at) == (times[1], times[-1])

        await place.holds(act, look)

    async def test_a_run_that_nobody_started_has_no_agent(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.episodic.record("r", LlmCall(1, 2))
            await ports.episodic.record("late", Ops(1))
            await ports.episodic.record("late", Started("a"))

        async def look(ports: Ports) -> None:
            found = await summary_of(ports.episodic, "r")
            assert (found.agent, found.episode_count, found.started_at) == (
                "",
                1,
                (await times_of(ports.episodic, "r"))[0],
            )
            late = await summary_of(ports.episodic, "late")
            assert (late.agent, late.started_at) == ("a", (await times_of(ports.episodic, "late"))[0])

        await place.holds(act, look)

    async def test_events_are_counted_exactly(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            for run, count in (("one", 1), ("many", 300)):
                await ports.episodic.record_many(run, [ToolCall("t", {}, ToolOk(number)) for number in range(count)])

        async def look(ports: Ports) -> None:
            counts = {item.run_id: item.episode_count for item in await ports.episodic.list_runs()}
            assert counts == {"one": 1, "many": 300}

        await place.holds(act, look)

    async def test_runs_are_listed_from_the_latest_started(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            for run in ("b", "a", "d", "c"):
                await _record_apart(ports.episodic, run)
            await ports.episodic.record("b", Ops("newer, in an older run"))

        async def look(ports: Ports) -> None:
            found = await ports.episodic.list_runs()
            assert [item.run_id for item in found] == ["c", "d", "a", "b"]
            assert found == await ports.episodic.list_runs(RunFilter())

        await place.holds(act, look)

    async def test_a_list_can_be_limited_to_none_and_to_more_than_there_are(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            for run in ("a", "b", "c"):
                await _record_apart(ports.episodic, run)

        async def look(ports: Ports) -> None:
            found = {
                limit: [item.run_id for item in await ports.episodic.list_runs(RunFilter(limit=limit))]
                for limit in (0, 2, 3, 9, None)
            }
            everything = ["c", "b", "a"]
            assert found == {0: [], 2: ["c", "b"], 3: everything, 9: everything, None: everything}

        await place.holds(act, look)

    async def test_a_list_goes_on_behind_a_cursor(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            for run in ("a", "b", "c", "d", "e"):
                await _record_apart(ports.episodic, run)

        async def look(ports: Ports) -> None:
            seen: list[str] = []
            cursor: str | None = None
            while page := await ports.episodic.list_runs(RunFilter(limit=2, after=cursor)):
                seen += [item.run_id for item in page]
                assert len(seen) <= 5
                cursor = page[-1].cursor
            assert seen == ["e", "d", "c", "b", "a"]

        await place.holds(act, look)

    async def test_both_bounds_of_the_start_are_included(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            for run in ("a", "b", "c"):
                await _record_apart(ports.episodic, run)

        async def look(ports: Ports) -> None:
            at = (await summary_of(ports.episodic, "b")).started_at

            async def listed(since: dt.datetime | None, until: dt.datetime | None) -> str:
                found = await ports.episodic.list_runs(RunFilter(since=since, until=until))
                return "".join(item.run_id for item in found)

            assert await listed(at, at) == "b"
            assert await listed(at, None) == "cb"
            assert await listed(None, at) == "ba"
            assert await listed(at + MICROSECOND, None) == "c"
            assert await listed(None, at - MICROSECOND) == "a"
            assert await listed(at.astimezone(dt.timezone(dt.timedelta(hours=9))), at) == "b"

        await place.holds(act, look)

    async def test_bounds_the_wrong_way_round_list_nothing(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.episodic.record("r", Started("a"))

        async def look(ports: Ports) -> None:
            at = (await summary_of(ports.episodic, "r")).started_at
            assert await ports.episodic.list_runs(RunFilter(since=at + MICROSECOND, until=at - MICROSECOND)) == []

        await place.holds(act, look)

    async def test_an_agent_is_found_by_a_part_of_its_name_literally_and_by_case(self, place: PortsPlace) -> None:
        agents = ["planner", "Planner", "100%", "100", "snake_case", "snakeXcase", "ÄRGER", ""]

        async def act(ports: Ports) -> None:
            for number, agent in enumerate(agents):
                await ports.episodic.record(f"r{number}", Started(agent))

        async def look(ports: Ports) -> None:
            async def found(part: str, *, casefold: bool = False) -> set[str]:
                listed = await ports.episodic.list_runs(RunFilter(agent=part, casefold=casefold))
                return {item.agent for item in listed}

            assert await found("lann") == {"planner", "Planner"}
            assert await found("plan") == {"planner"}
            assert await found("%") == {"100%"}
            assert await found("e_c") == {"snake_case"}
            assert await found("") == set(agents)
            assert await found("nobody") == set()
            assert await found("PLAN", casefold=True) == {"planner", "Planner"}
            assert await found("ärger", casefold=True) == {"ÄRGER"}

        await place.holds(act, look)

    async def test_all_parts_of_a_filter_must_hold(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            for run in ("a", "b", "c"):
                await _record_apart(ports.episodic, run, agent="x" if run == "b" else "xy")

        async def look(ports: Ports) -> None:
            at = (await summary_of(ports.episodic, "b")).started_at
            found = await ports.episodic.list_runs(RunFilter(agent="y", since=at, limit=5))
            assert [item.run_id for item in found] == ["c"]

        await place.holds(act, look)

    async def test_a_filter_that_is_none_is_refused(self, place: PortsPlace) -> None:
        bad = [
            RunFilter(limit=-1),
            RunFilter(since=dt.datetime(2026, 1, 1)),  # it says no zone
            RunFilter(agent=5),  # type: ignore[arg-type]
            RunFilter(after="nonsense"),
        ]
        async with place.opened() as ports:
            for run_filter in bad:
                with pytest.raises(InvalidInput):
                    await ports.episodic.list_runs(run_filter)


async def _record_several(episodic: EpisodicMemory, task: int) -> None:
    for number in range(0, 20, 2):
        await episodic.record("r", BusPublish(f"{task}:{number}"))
        await episodic.record_many("r", [BusPublish(f"{task}:{number + 1}")])


async def _record_apart(episodic: EpisodicMemory, run: str, agent: str = "a") -> None:
    """Begin a run at least a microsecond behind every other, so that they can be told apart by their times."""
    await episodic.record(run, Started(agent))
    begin = dt.datetime.now(dt.UTC)
    while dt.datetime.now(dt.UTC) - begin < 3 * MICROSECOND:
        await trio.lowlevel.checkpoint()
