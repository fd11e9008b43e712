"""Runs and threads as lines of JSON in klieo's shapes, for moving between the two: `export_lines`, `import_lines`.

    {"run_id":"01J…","recorded_at":"2026-11-27T13:00:00.000001Z","episode":{"Started":{"agent":"planner"}}}
    {"thread_id":"t","message":{"role":"user","content":"hi","tool_calls":[],"tool_call_id":null}}

What stands behind `episode` and `message` is klieo's own, byte for byte, also where it is of a kind or in a spelling
that is not known here. Times are told and not imported: here a time says when something was accepted.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec

from stepwell.errors import InvalidInput, InvalidState
from stepwell.memory.memory import Memory
from stepwell.model import wire
from stepwell.model.message import Message, message_from_json, message_to_json
from stepwell.model.run_event import RunEvent
from stepwell.model.run_event_wire import from_json, to_json
from stepwell.model.run_record import RecordedEvent

TOGETHER = 200
"""So many events of one run, or messages of one thread, that follow each other are stored as one batch."""
_EVERYTHING = 2**62
_DECODER = json.JSONDecoder()
_WHITE = " \t\r\n"


class ImportedLines(msgspec.Struct, kw_only=True):
    """What an import did. `known`: lines whose content was there already, in this place."""

    lines: int = 0
    events: int = 0
    messages: int = 0
    known: int = 0


async def export_lines(memory: Memory, *, strict: bool = False) -> AsyncIterator[str]:
    """Every run, the first started first, and every thread, a line each for its events and messages.

    With `strict`, what klieo could not read (a number beyond 32 bits) is `InvalidInput`.
    """
    for run in reversed(await memory.episodic.list_runs()):
        async for recorded in memory.episodic.iter_replay(run.run_id):
            yield _run_line(run.run_id, recorded, strict)
    for thread in await memory.short_term.threads():
        for message in await memory.short_term.load(thread, _EVERYTHING):
            yield f'{{"thread_id":{wire.dump(thread)},"message":{message_to_json(message)}}}'


def _run_line(run_id: str, recorded: RecordedEvent, strict: bool) -> str:
    at = recorded.time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return f'{{"run_id":{wire.dump(run_id)},"recorded_at":"{at}","episode":{to_json(recorded.event, strict=strict)}}}'


async def import_lines(memory: Memory, lines: Iterable[str]) -> ImportedLines:
    """Store what the lines say; durable on return. What is there already, in this place, is not stored again, so an
    import that was cut off goes on where it stopped. Blank lines are skipped.

    Raises: `InvalidInput` naming the line, `InvalidState` (a run or thread holds something else in this place); what
    the lines before said is stored.
    """
    importer = _Importer(memory)
    for number, line in enumerate(lines, 1):
        if not line.strip(_WHITE):
            continue
        try:
            name, place, value = _parsed(line)
        except InvalidInput as error:
            await importer.store()
            raise InvalidInput(f"line {number}: {error}") from None
        try:
            await importer.take(name, place, value)
        except InvalidState as error:
            raise InvalidState(f"line {number}: {error}") from None
    await importer.store()
    await memory.flush()
    return importer.done


def _parsed(line: str) -> tuple[str, str, RunEvent | Message]:
    """What a line is of, its id, and what it says."""
    spans = _top_level(line)
    for name, value_name in (("run_id", "episode"), ("thread_id", "message")):
        if name in spans and value_name in spans:
            place = wire.load(spans[name], name)
            if not isinstance(place, str):
                raise InvalidInput(f"{name}: must be text")
            text = spans[value_name]
            return name, place, from_json(text) if name == "run_id" else message_from_json(text)
    raise InvalidInput('must have "run_id" and "episode", or "thread_id" and "message"')


def _top_level(line: str) -> dict[str, str]:
    """The texts of the values of an object, by key, as they stand there. Raises: `InvalidInput`."""
    found: dict[str, str] = {}
    try:
        at = _skip(line, 0)
        if line[at] != "{":
            raise ValueError("it does not begin with {")
        at = _skip(line, at + 1)
        while line[at] != "}":
            key, at = _DECODER.raw_decode(line, at)
            at = _skip(line, at)
            if not isinstance(key, str) or line[at] != ":":
                raise ValueError(f"a key was expected at character {at}")
            begin = _skip(line, at + 1)
            _value, end = _DECODER.raw_decode(line, begin)
            found[key] = line[begin:end]
            at = _skip(line, end)
            if line[at] == ",":
                at = _skip(line, at + 1)
            elif line[at] != "}":
                raise ValueError(f"a comma was expected at character {at}")
        if line[at + 1 :].strip(_WHITE):
            raise ValueError("something follows the object")
    except (ValueError, IndexError, RecursionError) as error:
        raise InvalidInput(f"is no JSON object: {error}") from None
    return found


def _skip(line: str, at: int) -> int:
    while line[at] in _WHITE:
        at += 1
    return at


class _Importer:
    """Lines on their way into a memory: those of one run or thread that follow each other wait, to go together."""

    def __init__(self, memory: Memory):
        self._memory = memory
        self._there: dict[tuple[str, str], list[Any]] = {}
        """What a run or thread held before, as far as it was not met yet; last first."""
        self._waiting: list[Any] = []
        self._place = ("", "")
        self.done = ImportedLines()

    async def take(self, name: str, place: str, value: RunEvent | Message) -> None:
        self.done.lines += 1
        key = (name, place)
        if key not in self._there:
            self._there[key] = (await self._stored(name, place))[::-1]
        there = self._there[key]
        if there:
            if there[-1] != value:
                await self.store()
                raise InvalidState(f"{name} {place!r} holds something else in this place; import into another memory")
            there.pop()
            self.done.known += 1
            return
        if key != self._place or len(self._waiting) >= TOGETHER:
            await self.store()
            self._place = key
        self._waiting.append(value)

    async def _stored(self, name: str, place: str) -> list[Any]:
        if name == "run_id":
            return list(await self._memory.episodic.replay(place))
        return list(await self._memory.short_term.load(place, _EVERYTHING))

    async def store(self) -> None:
        """Store what waits."""
        waiting, self._waiting = self._waiting, []
        name, place = self._place
        if not waiting:
            return
        if name == "run_id":
            await self._memory.episodic.record_many(place, waiting)
            self.done.events += len(waiting)
        else:
            await self._memory.short_term.append_many(place, waiting)
            self.done.messages += len(waiting)
