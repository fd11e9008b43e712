"""The caller in a scenario: makes the public calls, notes what it was told, and does afterwards what it may do.

The table "What a caller is promised" is written out here: each method says what a call that was cancelled means
(`Fate`), and what the caller does next.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from math import inf
from typing import TypeVar

import trio

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    EpisodeHandle,
    ExecutionStep,
    Interrupted,
    InvalidState,
    LogFull,
    Memory,
    NotFound,
    OutcomeUnknown,
    Receipt,
    RetentionPolicy,
    StepSuccess,
    StepwellError,
    Success,
)
from stepwell.memory.atomic import AtomicScope
from stepwell.model.episode import Episode
from stepwell.model.outcome import TaskOutcome
from tests.cancellation.told import Fate, Logged, Told, judge
from tests.cancellation.watch import Watch

T = TypeVar("T")


def task_of(name: str) -> str:
    """The task text of an episode; it tells its name, also where its id is generated."""
    return f"task of {name}"


def name_of(episode: Episode) -> str:
    """The name in a task text; of a run that was recorded, which has none, its id."""
    return episode.task_description.removeprefix("task of ") or episode.episode_id


class Caller:
    """One task that uses a memory. Those of one run share `told`, by name of the episode, which is its id."""

    def __init__(
        self, name: str, watch: Watch, told: dict[str, Told], *, commit: bool = False, medium_fails: bool = False
    ):
        self.name, self.watch, self.told, self._commit, self._medium_fails = name, watch, told, commit, medium_fails
        self.memory: Memory
        self.files: MemoryFileSystem
        self.receipts: list[tuple[str, Receipt, Logged]] = []
        self.again: list[Callable[[], Awaitable[object]]] = []
        self.heard: set[int] = set()
        """The commits (`id`) that somebody was told have failed."""
        self._numbers = 0

    def beside(self, name: str) -> Caller:
        """Another task beside this one; what it is told and does again is this one's as well."""
        other = Caller(name, self.watch, self.told, commit=self._commit, medium_fails=self._medium_fails)
        other.memory, other.receipts, other.again, other.heard = self.memory, self.receipts, self.again, self.heard
        return other

    # ---- any public call -------------------------------------------------------------------------------------------

    @contextmanager
    def call(self, *, leaving: bool = False, ready: bool = False) -> Iterator[None]:
        """Around one public call. `leaving`: it may finish although its caller is cancelled, or raise what the body
        did. `ready`: it need not be a checkpoint, since what it gives may be there already."""
        cancelled_before = trio.current_effective_deadline() == -inf
        raised_before = self.watch.raised_in_this_task()
        try:
            yield
        except trio.Cancelled:
            raise
        except BaseException as error:
            if not leaving and self.watch.raised_in_this_task() > raised_before:
                self.watch.object_to(f"Cancelled was replaced by {error!r}")
            raise
        if leaving:
            return
        if self.watch.raised_in_this_task() > raised_before:
            self.watch.object_to("Cancelled was swallowed: it was raised in a call that returned")
        elif cancelled_before and not ready:
            self.watch.object_to("a call returned although its caller was cancelled before: it is no checkpoint")

    async def plain(self, call: Callable[[], Awaitable[T]]) -> T:
        """A call that may be repeated if it is cancelled, and says nothing of what is stored."""
        try:
            with self.call():
                return await call()
        except trio.Cancelled:
            self.again.append(call)
            raise

    @asynccontextmanager
    async def entered(self, manager: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
        """`async with manager`, entering and leaving being a call each."""
        with self.call():
            value = await manager.__aenter__()
        try:
            yield value
        except BaseException as error:
            with self.call(leaving=True):
                absorbed = await manager.__aexit__(type(error), error, error.__traceback__)
            if not absorbed:
                raise
        else:
            with self.call(leaving=True):
                await manager.__aexit__(None, None, None)

    # ---- calls that change something -------------------------------------------------------------------------------

    def of(self, name: str) -> Told:
        """What is known of an episode."""
        return self.told.setdefault(name, Told())

    def handle(self, name: str) -> EpisodeHandle:
        return self.memory.handle(name)

    def number(self) -> int:
        """One that no other step of this caller has."""
        self._numbers += 1
        return self._numbers

    async def start(self, name: str) -> EpisodeHandle:
        """Cancelled: unknown; call again with the same id."""
        known = self.of(name)
        try:
            with self.call():
                handle = await self.memory.start_episode(task_of(name), episode_id=name)
        except trio.Cancelled:
            self.again.append(lambda: self.start(name))
            raise
        known.start = Fate.STORED
        return handle

    async def resume(self, name: str) -> None:
        """Cancelled: call again."""
        await self.plain(lambda: self.memory.resume(name))

    async def log(self, name: str, count: int = 1, *, by_handle: bool = False, keyed: bool = False) -> Receipt:
        """One step, or several as one batch. Cancelled: not stored, retry freely; with `durability="commit"` unknown,
        resubmit with the same key."""
        steps = [self._step(keyed) for _ in range(count)]
        logged, of_episode = Logged(self.name, tuple(one.action for one in steps), Fate.UNKNOWN), self.of(name).logged
        of_episode.append(logged)

        async def send() -> Receipt:
            target = self.handle(name)
            with self.call():
                if count > 1:
                    batch = target.log_steps(steps) if by_handle else self.memory.log_steps(name, steps)
                    receipt = await batch
                else:
                    receipt = await (target.log_step(steps[0]) if by_handle else self.memory.log_step(name, steps[0]))
            logged.fate, logged.seq = Fate.STORED, receipt.seq
            self.receipts.append((name, receipt, logged))
            if self._commit and not receipt.is_durable:
                self.watch.object_to(f"{receipt!r} was returned with durability='commit'")
            return receipt

        async def send_later() -> None:
            of_episode.remove(logged)
            of_episode.append(logged)
            await send()

        try:
            return await send()
        except trio.Cancelled:
            if not self._commit:
                logged.fate = Fate.NEVER
                self.again.append(send_later)
            elif keyed:
                self.again.append(send)
            raise
        except StepwellError as error:
            logged.fate = Fate.UNKNOWN if isinstance(error, OutcomeUnknown) else Fate.NEVER
            raise

    def _step(self, keyed: bool) -> ExecutionStep:
        action = f"{self.name} {self.number()}"
        return ExecutionStep("tool", action, {"of": action}, StepSuccess("output"), key=action if keyed else None)

    def log_nowait(self, name: str) -> Receipt:
        """A plain function: accepted on return."""
        one = self._step(False)
        logged = Logged(self.name, (one.action,), Fate.UNKNOWN)
        self.of(name).logged.append(logged)
        receipt = self.handle(name).log_step_nowait(one)
        logged.fate, logged.seq = Fate.STORED, receipt.seq
        self.receipts.append((name, receipt, logged))
        return receipt

    async def commit(self, *names: str) -> None:
        """A step for each of these episodes, in one transaction. Cancelled without a receipt: nothing is stored. With
        one: all of it will be. Either way the same steps may be committed again, and are stored once."""
        staged = {name: self._step(keyed=True) for name in names}
        noted = {name: Logged(self.name, (one.action,), Fate.UNKNOWN) for name, one in staged.items()}
        for name, logged in noted.items():
            self.of(name).logged.append(logged)

        async def send() -> None:
            transaction = self.memory.atomic()
            try:
                with self.call():
                    await transaction.__aenter__()
                for name, one in staged.items():
                    transaction.log_step(name, one)
                with self.call():
                    await transaction.__aexit__(None, None, None)
            except (trio.Cancelled, StepwellError) as error:
                note_error(transaction, error)
                raise
            note(transaction)
            if transaction.receipt is None or not transaction.receipt.is_durable:
                self.watch.object_to(f"a transaction was left with {transaction.receipt!r}")

        @trio.lowlevel.enable_ki_protection  # the judge looks: a Ctrl-C in that is none of the caller's
        def note_error(transaction: AtomicScope, error: BaseException) -> None:
            if transaction.receipt is None and not isinstance(error, OutcomeUnknown):
                for logged in noted.values():
                    logged.fate = Fate.NEVER
                return
            note(transaction)
            if isinstance(error, OutcomeUnknown):
                told = [transaction.receipt_of(name) for name in staged]
                self.heard |= {id(receipt._commit) for receipt in told if receipt is not None}

        def note(transaction: AtomicScope) -> None:
            for name, logged in noted.items():
                receipt = transaction.receipt_of(name)
                assert receipt is not None
                logged.fate, logged.seq = Fate.STORED, receipt.seq
                self.receipts.append((name, receipt, logged))

        async def send_again() -> None:
            for name, logged in noted.items():
                if logged.fate is Fate.NEVER:
                    self.of(name).logged.remove(logged)
                    self.of(name).logged.append(logged)
            await send()

        try:
            await send()
        except trio.Cancelled:
            self.again.append(send_again)
            raise

    async def wait(self, receipt: Receipt, *, reach_log: bool = False) -> None:
        """Cancelled: it will be stored all the same; await again."""

        async def wait() -> None:
            with self.hearing(receipt), self.call():
                await (receipt.reach_log() if reach_log else receipt.wait_durable())
            if not receipt.is_durable:
                self.watch.object_to(f"{receipt!r} although waiting for it has returned")

        try:
            await wait()
        except trio.Cancelled:
            self.again.append(wait)
            raise

    async def flush(self, name: str | None = None, *, by_handle: bool = False) -> None:
        """Cancelled: everything will be stored all the same; call again."""
        accepted = [receipt for episode, receipt, _ in self.receipts if name in (None, episode)]
        flush = self.memory.flush
        if name is not None:
            flush = self.handle(name).flush if by_handle else lambda: self.memory.flush_steps(name)

        async def call() -> None:
            with self.hearing(*(receipt for episode, receipt, _ in self.receipts if name in (None, episode))):
                await flush()

        await self.plain(call)
        for receipt in accepted:
            if not receipt.is_durable and id(receipt._commit) not in self.heard:
                self.watch.object_to(f"{receipt!r} although flushing has returned, and nobody was told")

    @contextmanager
    def hearing(self, *receipts: Receipt) -> Iterator[None]:
        """Around a call that tells which of these have failed, each time for the first time or for the second."""
        try:
            yield
        except (OutcomeUnknown, LogFull) as error:
            self._hear(receipts, is_refusal=isinstance(error, LogFull))  # which may be one of the call itself
            raise

    @trio.lowlevel.enable_ki_protection  # the judge looks: a Ctrl-C in that is none of the caller's
    def _hear(self, receipts: Sequence[Receipt], *, is_refusal: bool) -> None:
        failed = {id(receipt._commit) for receipt in receipts if receipt._commit.done and not receipt.is_durable}
        kept = not any(known.recorded for known in self.told.values())  # of those the receipts are not kept
        if not failed and kept and not is_refusal:
            self.watch.object_to("an unknown outcome of nothing that has failed")
        self.heard |= failed

    async def end(self, name: str, outcome: TaskOutcome, *, by_handle: bool = False) -> None:
        """Cancelled: unknown; completing again is idempotent."""
        known = self.of(name)
        known.outcome, known.ending = outcome, Fate.UNKNOWN

        async def complete() -> None:
            with self.hearing(*(receipt for episode, receipt, _ in self.receipts if episode == name)), self.call():
                if isinstance(outcome, Interrupted):
                    done = await self.memory.abandon(name, outcome.reason)
                elif by_handle:
                    done = await self.handle(name).complete(outcome)
                else:
                    done = await self.memory.complete_episode(name, outcome)
            known.ending = Fate.STORED
            for episode, receipt, _ in self.receipts:
                if episode == name and not receipt.is_durable and id(receipt._commit) not in self.heard:
                    self.watch.object_to(f"{name} has ended without {receipt!r}, and nobody was told")
            if done.outcome != outcome or not done.receipt.is_durable:
                self.watch.object_to(f"completing {name} gave {done.outcome!r}, {done.receipt!r}")

        try:
            await complete()
        except trio.Cancelled:
            self.again.append(complete)
            raise

    async def delete(self, name: str, *, purge: bool = False) -> None:
        """Cancelled: unknown; deleting again is the same as deleting once."""
        known = self.of(name)
        known.deletion = Fate.UNKNOWN
        try:
            with self.call():
                await self.memory.delete_episode(name, purge=purge)
        except trio.Cancelled:
            self.again.append(lambda: self.delete(name, purge=purge))
            raise
        known.deletion = Fate.STORED

    async def retain_no_failures(self, name: str) -> None:
        """Evict the one that has failed. Cancelled: unknown; what is under way goes on, and calling again does the
        rest."""
        known = self.of(name)
        known.deletion = Fate.UNKNOWN
        policy = RetentionPolicy(outcomes=("failure",))
        try:
            with self.call():
                await self.memory.retain(policy)
        except trio.Cancelled:
            self.again.append(lambda: self.retain_no_failures(name))
            raise
        known.deletion = Fate.STORED

    @asynccontextmanager
    async def run(self, name: str, *, by_id: bool = False) -> AsyncIterator[EpisodeHandle]:
        """A run scope. Cancelled while entering: unknown; but it never stays open where nobody can know its id."""
        known = self.of(name)
        known.is_run = not by_id
        scope = self.memory.episode(task_of(name), episode_id=name if by_id else None)
        async with self.entered(scope) as episode:
            known.start, known.is_run = Fate.STORED, True
            yield episode
        known.ending = Fate.STORED

    @asynccontextmanager
    async def step(self, name: str, handle: EpisodeHandle) -> AsyncIterator[None]:
        """A step scope. Once it is entered its step is accepted, even while the task is being cancelled."""
        number = self.number()
        scope = handle.step(f"tool of {self.name}", f"{self.name} {number}")
        async with self.entered(scope) as inside:
            try:
                yield
                inside.output = f"output {number}"
            finally:
                logged = Logged(self.name, (f"{self.name} {number}",), Fate.STORED)
                self.of(name).logged.append(logged)
        if scope.receipt is not None:
            self.receipts.append((name, scope.receipt, logged))

    # ---- reading ---------------------------------------------------------------------------------------------------

    async def get(self, name: str, *, by_handle: bool = False) -> Episode:
        """An episode; everything accepted before is in it."""
        before = [logged.actions for logged in self.of(name).logged if logged.fate is Fate.STORED]
        episode = await self.plain(self.handle(name).get if by_handle else lambda: self.memory.get_episode(name))
        shown = {one.action for one in episode.steps}
        for actions in before:
            if not shown.issuperset(actions):
                self.watch.object_to(f"get_episode({name!r}) does not show {actions}, which was accepted before")
        return episode

    async def shown(self) -> dict[str, Episode]:
        """Everything the memory holds, by name."""
        found: dict[str, Episode] = {}
        async for episode_id in self.memory.episode_ids():
            try:
                episode = await self.memory.get_episode(episode_id)
            except NotFound:
                continue  # deleted
            if name_of(episode) in found:
                self.watch.object_to(f"{name_of(episode)} is there twice")
            found[name_of(episode)] = episode
        return found

    async def settle(self) -> None:
        """Every receipt says what became of its step, at once."""
        for name, receipt, logged in self.receipts:
            try:
                with self.hearing(receipt), trio.fail_after(1):
                    await receipt.wait_durable()
            except OutcomeUnknown as error:
                logged.fate = Fate.UNKNOWN
                if not self._medium_fails:
                    self.watch.object_to(f"{receipt!r} of {name}: {error}")

    # ---- behind a cancellation -------------------------------------------------------------------------------------

    async def go_on(self) -> None:
        """Use the memory as after any cancellation: repeat what was cancelled, log everywhere, read everything."""
        if self._medium_fails:
            await trio.sleep(10)  # if it was full there is room again
        repeating, self.again = self.again, []
        # Another task may have ended or deleted the episode.
        told_late = (OutcomeUnknown, LogFull) if self._medium_fails else ()
        expected = (InvalidState, NotFound, *told_late)
        for again in repeating:
            with suppress(*expected):
                await again()
        for name, known in list(self.told.items()):
            if known.is_live:
                await self.log(name)
        await self.start("afterwards")
        await self.log("afterwards", 2)
        with suppress(*told_late):
            await self.flush()
        await self.flush()  # what was to be told was told
        await self.settle()
        await self.end("afterwards", Success("done"))
        await self.memory.compact()
        for text in judge(self.told, await self.shown()):
            self.watch.object_to(f"while open: {text}")
