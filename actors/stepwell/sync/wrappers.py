"""What calls give that has calls of its own, as plain code sees it. Made by `tools/make_doors.py`."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
import trio

from stepwell.bridge.entering import Entering
from stepwell.bridge.organising_staging import OrganisingStaging
from stepwell.bridge.pulling import Pulled
from stepwell.memory import following, handle, run_scope
from stepwell.memory.atomic import AtomicScope
from stepwell.memory.completed import CompletedEpisode
from stepwell.memory.run_following import RunChannel
from stepwell.model.fact import Fact, FactId, Origin
from stepwell.model.message import Message
from stepwell.model.run_event import RunEvent
from stepwell.model.scope import Scope
from stepwell.model.step import ExecutionStep
from stepwell.runtime import receipt as runtime_receipt
from stepwell.runtime.lifecycle_events import LifecycleChannel

if TYPE_CHECKING:
    from stepwell.sync.door import Door

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

    def wait_durable(self) -> None:
        """Return once the record is on the medium; see `stepwell.Receipt.wait_durable`."""
        receipt = self._receipt
        if receipt._commit.done:
            receipt.check_durable()
            return
        self._door.call(receipt.wait_durable)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Receipt) and self._receipt == other._receipt

    def __hash__(self) -> int:
        return hash(self._receipt)

    def __repr__(self) -> str:
        return repr(self._receipt)


class DoorScope(Generic[T_co]):
    """A context manager of the memory."""

    def __init__(self, door: Door, scope: Any):
        self._door, self._scope = door, scope

    def __enter__(self) -> T_co:
        entering = Entering(self._scope)
        try:
            entered: T_co = self._door.call(entering.enter)
            return entered
        except BaseException as error:
            if entering.is_done:
                reason = error
                self._door.call(lambda: entering.undo(reason))
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        absorbed: bool | None = self._door.call(lambda: self._scope.__aexit__(kind, error, traceback))
        return absorbed

    @property
    def completed(self) -> CompletedEpisode | None:
        """Of a run scope that was left: what its ending says."""
        completed: CompletedEpisode | None = shown(self._door, self._scope.completed)
        return completed


class Items(Generic[T]):
    """An iterator of the memory, many items in one crossing."""

    def __init__(self, door: Door, items: AsyncIterator[T]):
        self._door, self._items = door, items
        self._pulled = Pulled[T]()

    def __iter__(self) -> Items[T]:
        return self

    def __next__(self) -> T:
        pulled = self._pulled
        if pulled.is_empty:
            self._door.call(lambda: pulled.take_items(self._items))
            if pulled.is_empty:
                raise StopIteration
        return pulled.give()


class Channel(Generic[T]):
    """What `follow` and `Memory.lifecycle` give, in order; ends with the memory. For one task at a time."""

    def __init__(self, door: Door, channel: following.EventChannel | LifecycleChannel | RunChannel):
        self._door, self._channel = door, channel
        self._pulled = Pulled[T]()

    def receive(self) -> T:
        """The next one. Raises: `EOFError` once the memory is closed, and else what `receive` raises there."""
        pulled = self._pulled
        if pulled.is_empty:
            try:
                self._door.call(lambda: pulled.take_received(self._channel))
            except trio.EndOfChannel as end:
                raise EOFError("the memory is closed") from end
        return pulled.give()

    def __iter__(self) -> Channel[T]:
        return self

    def __next__(self) -> T:
        try:
            return self.receive()
        except EOFError:
            raise StopIteration from None


class Transaction(OrganisingStaging):
    """What is staged in the block of `Memory.atomic`; see `stepwell.AtomicScope`. Its calls are plain functions."""

    def __init__(self, door: Door, scope: AtomicScope):
        self._door, self._scope = door, scope

    def log_step(self, episode_id: str, step: ExecutionStep, *, expected_seq: int | None = None) -> None:
        """Stage one step for an episode; see `stepwell.AtomicScope.log_step`."""
        self._scope.log_step(episode_id, step, expected_seq=expected_seq)

    def log_steps(self, episode_id: str, steps: Sequence[ExecutionStep], *, expected_seq: int | None = None) -> None:
        """Stage several steps for an episode; see `stepwell.AtomicScope.log_steps`."""
        self._scope.log_steps(episode_id, steps, expected_seq=expected_seq)

    def append(self, thread: str, *messages: Message) -> None:
        """Stage messages for the end of a thread; see `stepwell.AtomicScope.append`."""
        self._scope.append(thread, *messages)

    def record(self, run: str, *events: RunEvent) -> None:
        """Stage events of a run; see `stepwell.AtomicScope.record`."""
        self._scope.record(run, *events)

    def remember(
        self,
        scope: Scope,
        fact: Fact,
        *,
        time: dt.datetime | None = None,
        expires_at: dt.datetime | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Stage a fact for a scope; see `stepwell.AtomicScope.remember`."""
        self._scope.remember(scope, fact, time=time, expires_at=expires_at, origin=origin)

    def fact_ids(self, scope: Scope) -> list[FactId]:
        """The ids of the facts that were staged for a scope; see `stepwell.AtomicScope.fact_ids`."""
        return self._scope.fact_ids(scope)

    @property
    def receipt(self) -> Receipt | None:
        """That of the last record of the transaction; see `stepwell.AtomicScope.receipt`."""
        receipt: Receipt | None = shown(self._door, self._scope.receipt)
        return receipt

    def receipt_of(self, episode_id: str) -> Receipt | None:
        """That of the last step staged for an episode; see `stepwell.AtomicScope.receipt_of`."""
        receipt: Receipt | None = shown(self._door, self._scope.receipt_of(episode_id))
        return receipt


def shown(door: Door, result: Any) -> Any:
    """A result as this door shows it: what has calls of its own is wrapped."""
    from stepwell.sync import surface

    kind = type(result)
    if kind is runtime_receipt.Receipt:
        return Receipt(door, result)
    if kind is run_scope.RunningEpisode:
        return surface.RunningEpisode(door, result)
    if kind is handle.EpisodeHandle:
        return surface.EpisodeHandle(door, result)
    if kind in (following.EventChannel, LifecycleChannel, RunChannel):
        return Channel(door, result)
    if kind is AtomicScope:
        return Transaction(door, result)
    if kind is CompletedEpisode:
        return msgspec.structs.replace(result, receipt=Receipt(door, result.receipt))
    return result
