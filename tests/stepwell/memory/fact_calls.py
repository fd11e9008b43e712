"""Calls of the long-term port for `test_checkpoints`: what they are, and what they raise."""

from __future__ import annotations

from trio.testing import assert_checkpoints

from stepwell import Fact, InvalidInput, Memory, NotFound, Scope
from tests.stepwell.memory.port_calls import PortCall

WS = Scope.workspace("team")
SKY = Fact("the sky is blue", {"n": 1})


async def forget(memory: Memory) -> None:
    fact_id = await memory.long_term.remember(WS, SKY)
    with assert_checkpoints():
        assert await memory.long_term.forget(fact_id)


async def supersede(memory: Memory) -> None:
    fact_id = await memory.long_term.remember(WS, SKY)
    with assert_checkpoints():
        await memory.long_term.remember(WS, Fact("it is grey"), supersedes=fact_id)


async def get(memory: Memory) -> None:
    fact_id = await memory.long_term.remember(WS, SKY)
    with assert_checkpoints():
        await memory.long_term.get(fact_id)


async def search(memory: Memory) -> None:
    await memory.long_term.remember_many(WS, [SKY] * 300)
    with assert_checkpoints():
        await memory.long_term.search(WS, "sky", where={"n": 1}, fall_through=[Scope.GLOBAL])


async def clear(memory: Memory, *, purge: bool = False) -> None:
    await memory.long_term.remember(WS, SKY)
    with assert_checkpoints():
        await memory.long_term.clear(WS, purge=purge)


async def commit(memory: Memory) -> None:
    async with memory.atomic() as tx:
        tx.remember(WS, SKY)


_REMEMBER, _MANY, _SEARCH = "LongTermPort.remember", "LongTermPort.remember_many", "LongTermPort.search"
_CLEAR = "LongTermPort.clear"

FACT_CALLS: dict[str, PortCall] = {
    "remember": PortCall(_REMEMBER, lambda m: m.long_term.remember(WS, SKY)),
    "remember, once": PortCall(_REMEMBER, lambda m: m.long_term.remember(WS, SKY, deduplicate=True)),
    "remember, superseding": PortCall(_REMEMBER, supersede),
    "remember, bad fact": PortCall(_REMEMBER, lambda m: m.long_term.remember(WS, Fact("")), InvalidInput),
    "remember, bad scope": PortCall(_REMEMBER, lambda m: m.long_term.remember("ws", SKY), InvalidInput),  # type: ignore[arg-type]
    "remember, text of half a character": PortCall(
        _REMEMBER, lambda m: m.long_term.remember(WS, Fact("\ud800")), InvalidInput
    ),
    "remember, superseding nothing": PortCall(
        _REMEMBER, lambda m: m.long_term.remember(WS, SKY, supersedes=f"{WS}/1.99"), NotFound
    ),
    "remember_many": PortCall(_MANY, lambda m: m.long_term.remember_many(WS, [SKY, SKY])),
    "remember_many, once": PortCall(_MANY, lambda m: m.long_term.remember_many(WS, [SKY, SKY], deduplicate=True)),
    "remember_many, none": PortCall(_MANY, lambda m: m.long_term.remember_many(WS, [])),
    "remember_many, bad fact": PortCall(_MANY, lambda m: m.long_term.remember_many(WS, [SKY, Fact("")]), InvalidInput),
    "recall": PortCall("LongTermPort.recall", lambda m: m.long_term.recall(WS, "sky")),
    "recall, bad k": PortCall("LongTermPort.recall", lambda m: m.long_term.recall(WS, "sky", -1), InvalidInput),
    "search": PortCall(_SEARCH, lambda m: m.long_term.search(WS, "sky")),
    "search, many facts": PortCall(_SEARCH, search),
    "search, bad filter": PortCall(_SEARCH, lambda m: m.long_term.search(WS, "sky", where=5), InvalidInput),  # type: ignore[arg-type]
    "get, a fact": PortCall("LongTermPort.get", get),
    "get, unknown": PortCall("LongTermPort.get", lambda m: m.long_term.get(f"{WS}/1.99"), NotFound),
    "get, no id": PortCall("LongTermPort.get", lambda m: m.long_term.get("x"), NotFound),
    "facts": PortCall("LongTermPort.facts", lambda m: m.long_term.facts(WS)),
    "facts, bad cursor": PortCall("LongTermPort.facts", lambda m: m.long_term.facts(WS, cursor="x"), InvalidInput),
    "scopes": PortCall("LongTermPort.scopes", lambda m: m.long_term.scopes()),
    "forget, a fact": PortCall("LongTermPort.forget", forget),
    "forget, unknown": PortCall("LongTermPort.forget", lambda m: m.long_term.forget(f"{WS}/1.99")),
    "forget, no id": PortCall("LongTermPort.forget", lambda m: m.long_term.forget("x")),
    "clear a scope": PortCall(_CLEAR, lambda m: m.long_term.clear(WS)),
    "clear a scope, that holds something": PortCall(_CLEAR, clear),
    "clear a scope, and purge": PortCall(_CLEAR, lambda m: clear(m, purge=True)),
    "clear a scope, bad scope": PortCall(_CLEAR, lambda m: m.long_term.clear("ws"), InvalidInput),  # type: ignore[arg-type]
    "atomic, a fact": PortCall("AtomicScope.__aexit__", commit),
}
