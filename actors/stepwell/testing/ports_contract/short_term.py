"""The rules of conversations."""

from __future__ import annotations

import pytest
import trio

from stepwell.errors import InvalidInput, TooLarge
from stepwell.memory.ports import ShortTermMemory
from stepwell.model.message import Message, Role
from stepwell.testing.ports_contract.place import PlaceOfPorts, Ports, PortsPlace

ALL = 10_000
"""A budget for everything."""


def said(text: str, role: str = Role.USER) -> Message:
    """A message."""
    return Message(role, text)


def texts(messages: list[Message]) -> list[str]:
    """What they say."""
    return [message.content for message in messages]


def numbered(count: int, size: int = 8) -> list[Message]:
    """Messages of `size` characters each."""
    return [said(f"{number:>{size}}") for number in range(count)]


class ShortTermContract(PlaceOfPorts):
    """The rules of conversations."""

    async def test_messages_come_back_in_the_order_in_which_they_were_appended(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            for text in ("one", "two"):
                await ports.short_term.append("t", said(text))
            await ports.short_term.append_many("t", [said("three"), said("four")])

        async def look(ports: Ports) -> None:
            assert texts(await ports.short_term.load("t", ALL)) == ["one", "two", "three", "four"]

        await place.holds(act, look)

    async def test_one_message_appended_is_one_message_loaded(self, place: PortsPlace) -> None:
        """klieo's own example."""

        async def act(ports: Ports) -> None:
            await ports.short_term.append("thread-1", said("hi"))

        async def look(ports: Ports) -> None:
            assert await ports.short_term.load("thread-1", 1024) == [said("hi")]

        await place.holds(act, look)

    async def test_what_is_loaded_is_the_newest_that_fits_in_one_piece(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.short_term.append_many("t", [said("old"), said("x" * 400), said("a" * 8), said("b" * 8)])

        async def look(ports: Ports) -> None:
            # The old one would fit as well, behind the large one that does not: there may be no gap.
            assert texts(await ports.short_term.load("t", 50)) == ["a" * 8, "b" * 8]

        await place.holds(act, look)

    async def test_a_smaller_budget_loads_the_end_of_what_a_larger_one_loads(self, place: PortsPlace) -> None:
        roles = [Role.USER, Role.ASSISTANT, Role.TOOL, Role.TOOL, Role.SYSTEM]

        async def act(ports: Ports) -> None:
            await ports.short_term.append_many(
                "t", [said("x" * (number * 7 % 23), roles[number % 5]) for number in range(40)]
            )

        async def look(ports: Ports) -> None:
            before: list[Message] = []
            for budget in range(130):
                loaded = await ports.short_term.load("t", budget)
                assert loaded[len(loaded) - len(before) :] == before
                before = loaded
            assert len(before) == 40

        await place.holds(act, look)

    async def test_what_is_loaded_costs_no_more_than_the_budget(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.short_term.append_many("t", [said("x" * (number * 7 % 23)) for number in range(40)])

        async def look(ports: Ports) -> None:
            for budget in range(60):
                loaded = await ports.short_term.load("t", budget)
                assert sum(max(1, len(message.content) // 4) for message in loaded) <= budget

        await place.holds(act, look)

    async def test_a_budget_of_nothing_loads_nothing(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.short_term.append_many("t", [said(""), said("x")])

        async def look(ports: Ports) -> None:
            assert await ports.short_term.load("t", 0) == []
            assert await ports.short_term.load("t", 0, oversize="keep_last") == []

        await place.holds(act, look)

    async def test_an_unknown_thread_is_empty(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.short_term.append("t", said("hi"))

        async def look(ports: Ports) -> None:
            assert await ports.short_term.load("T", ALL) == []
            assert await ports.short_term.load("other", ALL) == []

        await place.holds(act, look)

    async def test_threads_are_apart_and_named(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            for thread in ("b", "a", "b", "Ä b", "c"):
                await ports.short_term.append(thread, said(f"to {thread}"))
            await ports.short_term.clear("c")

        async def look(ports: Ports) -> None:
            assert texts(await ports.short_term.load("a", ALL)) == ["to a"]
            assert texts(await ports.short_term.load("b", ALL)) == ["to b", "to b"]
            assert sorted(await ports.short_term.threads()) == ["a", "b", "Ä b"]

        await place.holds(act, look)

    async def test_clearing_a_thread_leaves_the_others(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.short_term.append("t", said("mine"))
            await ports.short_term.append("other", said("yours"))
            await ports.short_term.clear("t")

        async def look(ports: Ports) -> None:
            assert await ports.short_term.load("t", ALL) == []
            assert texts(await ports.short_term.load("other", ALL)) == ["yours"]

        await place.holds(act, look)

    async def test_clearing_again_or_what_is_unknown_is_no_error(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.short_term.append("t", said("mine"))
            for thread in ("t", "t", "never used"):
                await ports.short_term.clear(thread)

        async def look(ports: Ports) -> None:
            assert await ports.short_term.load("t", ALL) == []

        await place.holds(act, look)

    async def test_a_cleared_thread_can_be_used_again(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            for number in range(3):
                await ports.short_term.append("t", said(f"before {number}"))
                await ports.short_term.clear("t")
            await ports.short_term.append("t", said("after"))

        async def look(ports: Ports) -> None:
            assert texts(await ports.short_term.load("t", ALL)) == ["after"]

        await place.holds(act, look)

    async def test_tool_calls_and_their_ids_come_back_as_they_were(self, place: PortsPlace) -> None:
        calls = [{"id": "c1", "function": {"name": "f", "arguments": '{"a": [1, null]}'}}, {"id": "c2", "x": 1.5}]
        messages = [
            Message(Role.ASSISTANT, "", calls),
            Message(Role.TOOL, "forty-two", tool_call_id="c1"),
            Message(Role.TOOL, "", tool_call_id="c2"),
        ]

        async def act(ports: Ports) -> None:
            await ports.short_term.append_many("t", messages)

        async def look(ports: Ports) -> None:
            assert await ports.short_term.load("t", ALL) == messages

        await place.holds(act, look)

    async def test_a_role_that_is_not_known_is_kept(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.short_term.append("t", Message("Developer", "x"))

        async def look(ports: Ports) -> None:
            assert [message.role for message in await ports.short_term.load("t", ALL)] == ["Developer"]

        await place.holds(act, look)

    async def test_an_empty_message_costs_one(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.short_term.append_many("t", [said("") for _ in range(5)])

        async def look(ports: Ports) -> None:
            assert [len(await ports.short_term.load("t", budget)) for budget in (1, 4, 5)] == [1, 4, 5]

        await place.holds(act, look)

    async def test_characters_are_counted_and_not_bytes(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.short_term.append_many("t", [said("漢字" * 8), said("🧀" * 16)])

        async def look(ports: Ports) -> None:
            assert [len(await ports.short_term.load("t", budget)) for budget in (3, 4, 7, 8)] == [0, 1, 1, 2]

        await place.holds(act, look)

    async def test_a_newest_message_that_alone_is_too_large_loads_nothing(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.short_term.append_many("t", [said("small"), said("x" * 400)])

        async def look(ports: Ports) -> None:
            assert await ports.short_term.load("t", 99) == []
            assert await ports.short_term.load("t", 99, oversize="strict") == []
            assert len(await ports.short_term.load("t", 100)) == 1

        await place.holds(act, look)

    async def test_it_is_loaded_alone_if_asked_for(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.short_term.append_many("t", [said("small"), said("x" * 400)])

        async def look(ports: Ports) -> None:
            assert texts(await ports.short_term.load("t", 99, oversize="keep_last")) == ["x" * 400]
            assert len(await ports.short_term.load("t", 101, oversize="keep_last")) == 2

        await place.holds(act, look)

    async def test_or_it_is_an_error_if_asked_for(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.short_term.append_many("t", [said("small"), said("x" * 400)])

        async def look(ports: Ports) -> None:
            with pytest.raises(TooLarge):
                await ports.short_term.load("t", 99, oversize="raise")
            assert len(await ports.short_term.load("t", 100, oversize="raise")) == 1
            assert await ports.short_term.load("unknown", 1, oversize="raise") == []

        await place.holds(act, look)

    async def test_a_cut_never_begins_with_the_reply_of_a_tool(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            talk = [said("hi"), Message(Role.ASSISTANT, "", [{"id": "a"}, {"id": "b"}])]
            talk += [Message(Role.TOOL, "x", tool_call_id=call) for call in "ab"]
            await ports.short_term.append_many("t", [*talk, said("so")])

        async def look(ports: Ports) -> None:
            assert [len(await ports.short_term.load("t", budget)) for budget in range(1, 6)] == [1, 1, 1, 4, 5]

        await place.holds(act, look)

    async def test_the_last_system_message_can_be_pinned(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            talk = [said("be rude", Role.SYSTEM), said("be nice", Role.SYSTEM), *numbered(10)]
            await ports.short_term.append_many("t", talk)

        async def look(ports: Ports) -> None:
            pinned = await ports.short_term.load("t", 5, pin_system=True)
            assert texts(pinned) == ["be nice", *(f"{number:>8}" for number in (8, 9))]
            assert texts(await ports.short_term.load("t", 5)) == [f"{number:>8}" for number in (8, 9)]
            everything = await ports.short_term.load("t", ALL, pin_system=True)
            assert texts(everything)[:3] == ["be rude", "be nice", f"{0:>8}"]

        await place.holds(act, look)

    async def test_a_summary_stands_for_what_it_covers(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            await ports.short_term.append_many("t", numbered(10))
            await ports.short_term.summarise("t", "first", 1, 3)
            await ports.short_term.summarise("t", "they counted", 1, 8)
            await ports.short_term.append("t", said("so"))

        async def look(ports: Ports) -> None:
            summarised = await ports.short_term.load("t", ALL, with_summary=True)
            assert texts(summarised) == ["they counted", f"{8:>8}", f"{9:>8}", "so"]
            assert summarised[0].role == Role.SYSTEM
            assert len(await ports.short_term.load("t", ALL)) == 11
            assert texts(await ports.short_term.load("t", 4, with_summary=True)) == ["they counted", "so"]

        await place.holds(act, look)

    async def test_what_is_no_message_is_refused_and_nothing_is_stored(self, place: PortsPlace) -> None:
        bad = [Message("", "x"), Message(Role.USER, None), Message(Role.USER, "x", [b"bytes"]), "hi"]  # type: ignore[arg-type]

        async def act(ports: Ports) -> None:
            for message in bad:
                with pytest.raises(InvalidInput):
                    await ports.short_term.append("t", message)  # type: ignore[arg-type]
                with pytest.raises(InvalidInput):
                    await ports.short_term.append_many("t", [said("good"), message])  # type: ignore[list-item]

        async def look(ports: Ports) -> None:
            assert await ports.short_term.load("t", ALL) == []

        await place.holds(act, look)

    async def test_of_concurrent_appends_none_is_lost_and_each_task_keeps_its_order(self, place: PortsPlace) -> None:
        async def act(ports: Ports) -> None:
            async with trio.open_nursery() as nursery:
                for task in range(5):
                    nursery.start_soon(_append_several, ports.short_term, task)

        async def look(ports: Ports) -> None:
            found = texts(await ports.short_term.load("t", ALL))
            assert len(found) == len(set(found)) == 100
            for task in range(5):
                own = [text for text in found if text.startswith(f"{task}:")]
                assert own == [f"{task}:{number}" for number in range(20)]

        await place.holds(act, look)


async def _append_several(short_term: ShortTermMemory, task: int) -> None:
    for number in range(0, 20, 2):
        await short_term.append("t", said(f"{task}:{number}"))
        await short_term.append_many("t", [said(f"{task}:{number + 1}")])
