"""What calls give that has calls of its own, as asyncio sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
import trio

from stepstore.journal import Gap
from stepwell.bridge.pulling import some_events, some_of
from stepwell.memory import following, handle, run_scope
from stepwell.memory.completed import CompletedEpisode
from stepwell.model.event import Event
from stepwell.runtime import receipt as runtime_receipt

if TYPE_CHECKING:
    from stepwell.aio.door import Door

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Receipt:
    """The acknowledgement of a step; see `stepwell.Receipt`."""

    __slots__ = ("_door", "_receipt")

    def __init__(self, door: Door, receipt: runtime_receipt.Receipt):
        self._door, self._receipt = door, receipt

    @property
    def seq(self) -> int:
        """The number of the record in its episode; of the last one, for a batch."""
        return self._receipt.seq

    @property
    def lsn(self) -> int | None:
        """The number of the record in the whole log, None until it is durable."""
        return self._receipt.lsn

    @property
    def is_durable(self) -> bool:
        """Whether the record is on the medium."""
        return self._receipt.is_durable

    async def wait_durable(self) -> None:
        """Return once the record is on the medium; see `stepwell.Receipt.wait_durable`."""
        receipt = self._receipt
        if receipt._commit.done:
            await asyncio.sleep(0)
            receipt.check_durable()
            return
        await self._door.call(receipt.wait_durable)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Receipt) and self._receipt == other._receipt

    def __hash__(self) -> int:
        return hash(self._receipt)

    def __repr__(self) -> str:
        return repr(self._receipt)


class Scope(Generic[T_co]):
    """An async context manager of the memory, entered and left from asyncio."""

    def __init__(self, door: Door, scope: Any):
        self._door, self._scope = door, scope

    async def __aenter__(self) -> T_co:
        entered: T_co = await self._door.call(self._scope.__aenter__)
        return entered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        absorbed: bool | None = await self._door.call(lambda: self._scope.__aexit__(kind, error, traceback))
        return absorbed

    @property
    def completed(self) -> CompletedEpisode | None:
        """Of a run scope that was left: what its ending says."""
        completed: CompletedEpisode | None = shown(self._door, self._scope.completed)
        return completed


class Items(Generic[T]):
    """An async iterator of the memory, read from asyncio, many items in one crossing."""

    def __init__(self, door: Door, items: AsyncIterator[T]):
        self._door, self._items = door, items
        self._ready: list[T] = []

    def __aiter__(self) -> Items[T]:
        return self

    async def __anext__(self) -> T:
        if not self._ready:
            self._ready = await self._door.call(lambda: some_of(self._items))
            self._ready.reverse()
            if not self._ready:
                raise StopAsyncIteration
        return self._ready.pop()


class EventChannel:
    """Events in log order; ends when the memory is closed. For one task at a time. See `stepwell.Memory.follow`."""

    def __init__(self, door: Door, channel: following.EventChannel):
        self._door, self._channel = door, channel
        self._ready: list[Event | Gap] = []

    async def receive(self) -> Event | Gap:
        """The next event, or a `Gap`. Raises: `EOFError` once the memory is closed."""
        if not self._ready:
            try:
                self._ready = await self._door.call(lambda: some_events(self._channel))
            except trio.EndOfChannel as end:
                raise EOFError("the memory is closed") from end
            self._ready.reverse()
        return self._ready.pop()

    def __aiter__(self) -> EventChannel:
        return self

    async def __anext__(self) -> Event | Gap:
        try:
            return await self.receive()
        except EOFError:
            raise StopAsyncIteration from None


def shown(door: Door, result: Any) -> Any:
    """A result as this door shows it: what has calls of its own is wrapped."""
    from stepwell.aio import surface

    kind = type(result)
    if kind is runtime_receipt.Receipt:
        return Receipt(door, result)
    if kind is run_scope.RunningEpisode:
        return surface.RunningEpisode(door, result)
    if kind is handle.EpisodeHandle:
        return surface.EpisodeHandle(door, result)
    if kind is following.EventChannel:
        return EventChannel(door, result)
    if kind is CompletedEpisode:
        return msgspec.structs.replace(result, receipt=Receipt(door, result.receipt))
    return result
