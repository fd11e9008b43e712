"""Random callers of one memory, each a task; what they send and are told goes to the model.

Each operation is a method named `do_…`; WEIGHTS says how often it is chosen. What a call may raise is checked as well:
on a medium that has not failed, only what another caller explains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import trio

from stepwell import (
    Busy,
    Closed,
    EpisodeHandle,
    ExecutionStep,
    Failure,
    Interrupted,
    InvalidState,
    LogFull,
    Memory,
    NotFound,
    OutcomeUnknown,
    PartialSuccess,
    Receipt,
    Rejected,
    StepError,
    StepSuccess,
    StepwellError,
    Success,
    Unavailable,
)
from stepwell.errors import RecoveryFailed
from stepwell.model.outcome import TaskOutcome
from stepwell.testing import Simulation
from tests.simulation.model import Attempt, Fate, Model, Sent

WEIGHTS = {
    "start": 3,
    "start_again": 1,
    "log": 10,
    "log_with_key": 4,
    "resubmit": 4,
    "misuse_key": 1,
    "batch": 4,
    "log_behind": 2,
    "transaction": 4,
    "burst": 4,
    "nowait": 4,
    "flush_late": 6,
    "step_scope": 1,
    "run_scope": 2,
    "complete": 2,
    "complete_again": 1,
    "abandon": 1,
    "resume": 1,
    "flush": 2,
    "flush_one": 2,
    "wait": 3,
    "get": 4,
    "events": 2,
    "open_episodes": 1,
    "delete": 1,
    "purge": 1,
    "compact": 1,
    "crash": 1,
    "sleep": 3,
}
CLOSED_EARLY = Interrupted("the memory was closed before the run had ended", cause="cancelled")


CRASHES = 5
"""Of one episode in one process; behind the sixth in a row its task is parked."""


class BodyError(Exception):
    """What the body of a run scope raises."""


class Crash(Exception):
    """What the task of an episode is made to fail with."""


class Setting:
    """What the agents of one process share. `closing`: the memory is being left; `in_a_hurry`: with a grace only;
    `troubled`: the medium has failed a call."""

    def __init__(
        self, memory: Memory, model: Model, simulation: Simulation, troubled: Callable[[], bool], commit: bool
    ):
        self.memory, self.model, self.simulation, self.troubled = memory, model, simulation, troubled
        self.commit = commit
        self.closing = self.in_a_hurry = False
        self.crashes: Counter[str] = Counter()


class Agent:
    """One caller."""

    def __init__(self, name: str, setting: Setting, operations: int):
        self.name, self.setting, self._operations = name, setting, operations
        self.memory, self.model, self.simulation = setting.memory, setting.model, setting.simulation
        self.random = Random(setting.simulation.random.getrandbits(64))
        self._last_seq: dict[str, int] = {}

    async def run(self) -> None:
        """Call until there were enough calls, or the memory is closed."""
        for _ in range(self._operations):
            what = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            operation: Callable[[], Awaitable[None]] = getattr(self, f"do_{what}")
            self.note(what)
            patience = self.random.expovariate(200) if self.random.random() < 0.15 else float("inf")
            try:
                with trio.move_on_after(patience) as scope:
                    await operation()
                if scope.cancelled_caught:
                    self.note(f"{what} was cancelled")
            except Closed:
                if not self.setting.closing and not self.setting.troubled():
                    self.model.object_to(f"{what}: the memory is closed, and nobody closed it")
                return
            except Exception as error:
                self.model.object_to(f"{self.name}: {what} raised {error!r}")
                return
            await trio.lowlevel.checkpoint()

    def note(self, text: str) -> None:
        """Tell the trace."""
        if not self.model.frozen:
            self.simulation.note(f"  {self.name}: {text}")

    # ---- calls -------------------------------------------------------------------------------------------------------

    async def call(
        self,
        sent: Sent | None,
        attempt: Attempt | None,
        made: Callable[[], Awaitable[Any]],
        *,
        cancelled: Fate = Fate.UNKNOWN,
        expected: tuple[type[StepwellError], ...] = (),
    ) -> Any:
        """Make a call that is to have the effect of `attempt`, note what became of it, and check what it raises.

        None if it raised an error that is excused. Raises: `Closed`, `Cancelled`.
        """
        model = self.model
        was_started = sent is not None and Fate.STORED in sent.fates("start")
        if sent is not None and attempt is not None:
            model.begin(sent, attempt)
        try:
            result = await made()
        except trio.Cancelled:
            if sent is not None and attempt is not None:
                model.learn(sent, attempt, cancelled)
            raise
        except StepwellError as error:
            if sent is not None and attempt is not None:
                definite = isinstance(error, Rejected | InvalidState | NotFound)
                model.learn(sent, attempt, Fate.REFUSED if definite else Fate.UNKNOWN)
                self.note(f"{attempt} of {sent.name}: {type(error).__name__}")
            is_told = attempt is None or attempt.what == "end"
            if isinstance(error, OutcomeUnknown) or (is_told and isinstance(error, LogFull | Closed)):
                model.hear(sent)
            if isinstance(error, Closed):
                raise
            if not isinstance(error, expected) and not self._excused(sent, error, was_started):
                model.object_to(f"{self.name}: {attempt} of {sent and sent.name}: no reason for {error!r}")
            model.count(type(error).__name__)
            return None
        if sent is not None and attempt is not None:
            model.learn(
                sent,
                attempt,
                Fate.ACCEPTED if attempt.what == "log" else Fate.STORED,
                result if isinstance(result, Receipt) else None,
            )
            self.note(f"{attempt} of {sent.name} → {result.seq if isinstance(result, Receipt) else 'done'}")
            model.count(attempt.what)
        return result

    def _excused(self, sent: Sent | None, error: Exception, was_started: bool = True) -> bool:
        whats = {attempt.what for attempt in sent.attempts} if sent is not None else set()
        if isinstance(error, OutcomeUnknown):
            return self.setting.troubled() or self.setting.in_a_hurry
        if isinstance(error, InvalidState):
            return bool(whats & {"end", "delete"})
        if isinstance(error, NotFound):
            return not was_started or "delete" in whats or sent is None or Fate.STORED not in sent.fates("start")
        return isinstance(error, LogFull | Unavailable | RecoveryFailed) and self.setting.troubled()

    @staticmethod
    async def _done(call: Awaitable[object]) -> bool:
        await call
        return True

    def some_episode(self) -> Sent:
        """One that was asked for."""
        known = list(self.model.episodes.values())
        alive = [sent for sent in known if not sent.was_asked_to("end") and not sent.was_asked_to("delete")]
        return self.random.choice(alive if alive and self.random.random() < 0.85 else known)

    def new_step(self, sent: Sent, key: str | None = None) -> tuple[int, ExecutionStep]:
        """A step that says which one it is."""
        self.model.numbers += 1
        number = self.model.numbers
        size = self.random.choice((0, 0, 30, 200, 700, 3000))
        text = f"{number} " + "x" * size
        result = StepSuccess(text) if self.random.random() < 0.8 else StepError(text)
        step = ExecutionStep(
            f"tool {self.name}", f"action {number}", {"n": number}, result, latency_ms=number % 7, key=key
        )
        sent.steps[number] = step
        if key is not None:
            sent.keyed[key] = number
        return number, step

    def new_outcome(self) -> TaskOutcome:
        """An outcome that nobody else asks for."""
        self.model.numbers += 1
        text = f"outcome {self.model.numbers}"
        return self.random.choice((Success(text), PartialSuccess(text, ["a"], ["b"]), Failure(text)))

    async def accept(
        self, sent: Sent, numbers: tuple[int, ...], made: Callable[[], Awaitable[Receipt]], *, resubmitted: bool = False
    ) -> None:
        """Hand in steps, and check the receipt."""
        cancelled = Fate.UNKNOWN if self.setting.commit else Fate.REFUSED
        receipt = await self.call(sent, Attempt("log", numbers), made, cancelled=cancelled)
        if receipt is not None:
            self._check_receipt(sent, receipt, resubmitted)

    def _check_receipt(self, sent: Sent, receipt: Receipt, resubmitted: bool) -> None:
        if self.setting.commit and not receipt.is_durable:
            self.model.object_to(f"{sent.name}: seq {receipt.seq} is not durable, and the setting is commit")
        if not resubmitted and not self.setting.troubled():
            if receipt.seq <= self._last_seq.get(sent.name, 1):
                self.model.object_to(f"{sent.name}: {self.name} got seq {receipt.seq} behind {self._last_seq}")
            self._last_seq[sent.name] = receipt.seq

    # ---- operations --------------------------------------------------------------------------------------------------

    async def do_start(self) -> None:
        name = f"e{len(self.model.episodes) + 1}"
        sent = self.model.episodes[name] = Sent(name, f"task of {name}")
        await self.call(sent, Attempt("start"), lambda: self.memory.start_episode(sent.task, episode_id=name))

    async def do_start_again(self) -> None:
        sent = self.some_episode()
        if self.random.random() < 0.3 and Fate.STORED in sent.fates("start"):
            made = lambda: self.memory.start_episode("another task", episode_id=sent.name)  # noqa: E731
            if await self.call(None, None, made, expected=(InvalidState,)) is not None:
                self.model.object_to(f"{sent.name} was started again with another task")
        else:
            made = lambda: self.memory.start_episode(sent.task, episode_id=sent.name)  # noqa: E731
            await self.call(sent, Attempt("start"), made)

    async def do_log(self) -> None:
        sent = self.some_episode()
        number, step = self.new_step(sent)
        await self.accept(sent, (number,), lambda: self.memory.log_step(sent.name, step))

    async def do_log_with_key(self) -> None:
        sent = self.some_episode()
        number, step = self.new_step(sent, f"key {self.model.numbers}")
        await self.accept(sent, (number,), lambda: self.memory.log_step(sent.name, step))

    async def do_resubmit(self) -> None:
        sent = self.some_episode()
        if sent.keyed:
            number = self.random.choice(list(sent.keyed.values()))
            step = sent.steps[number]
            await self.accept(sent, (number,), lambda: self.memory.log_step(sent.name, step), resubmitted=True)

    async def do_misuse_key(self) -> None:
        sent = self.some_episode()
        stored = [
            number
            for number in sent.keyed.values()
            if any(number in a.numbers and a.fate is Fate.STORED for a in sent.attempts)
        ]
        if stored:
            key = sent.steps[self.random.choice(stored)].key
            other = ExecutionStep("another", "step", {"n": 0}, StepSuccess(""), key=key)
            made = lambda: self.memory.log_step(sent.name, other)  # noqa: E731
            if await self.call(sent, None, made, expected=(InvalidState,)) is not None:
                self.model.object_to(f"{sent.name}: the key {key} was taken for another step")

    async def do_batch(self) -> None:
        sent = self.some_episode()
        made = [self.new_step(sent) for _ in range(self.random.randrange(1, 6))]
        steps = [step for _number, step in made]
        await self.accept(sent, tuple(number for number, _ in made), lambda: self.memory.log_steps(sent.name, steps))

    async def do_log_behind(self) -> None:
        """A step that is to come behind a certain record only."""
        sent = self.some_episode()
        number, step = self.new_step(sent)
        last = max(sent.shown, default=1)
        cancelled = Fate.UNKNOWN if self.setting.commit else Fate.REFUSED
        made = lambda: self.memory.log_step(sent.name, step, expected_seq=last)  # noqa: E731
        receipt = await self.call(sent, Attempt("log", (number,)), made, cancelled=cancelled, expected=(InvalidState,))
        if receipt is not None:
            self.model.count("behind the expected record")
            if receipt.seq != last + 1:
                self.model.object_to(f"{sent.name}: {number} was to come behind {last}, and is {receipt.seq}")

    async def do_transaction(self) -> None:
        parts: dict[str, tuple[Sent, Attempt]] = {}
        scope = self.memory.atomic()
        for _ in range(self.random.randrange(1, 4)):
            sent = self.some_episode()
            if sent.name not in parts:
                parts[sent.name] = sent, Attempt("log")
        attempts = list(parts.values())
        self.model.transactions.append(attempts)
        for sent, attempt in attempts:
            self.model.begin(sent, attempt)
        try:
            async with scope:
                for sent, attempt in attempts:
                    for _ in range(self.random.randrange(1, 4)):
                        number, step = self.new_step(sent)
                        attempt.numbers += (number,)
                        scope.log_step(sent.name, step)
        except trio.Cancelled:
            for sent, attempt in attempts:
                receipt = scope.receipt_of(sent.name) if scope.receipt is not None else None
                self.model.learn(sent, attempt, Fate.REFUSED if receipt is None else Fate.ACCEPTED, receipt)
            raise
        except StepwellError as error:
            unknown = isinstance(error, OutcomeUnknown)
            for sent, attempt in attempts:
                self.model.learn(sent, attempt, Fate.UNKNOWN if unknown else Fate.REFUSED)
            self.note(f"transaction of {', '.join(parts)}: {type(error).__name__}")
            if isinstance(error, Closed):
                raise
            if not any(self._excused(sent, error) for sent, _attempt in attempts):
                self.model.object_to(f"{self.name}: a transaction of {list(parts)}: no reason for {error!r}")
            return
        for sent, attempt in attempts:
            receipt = scope.receipt_of(sent.name)
            self.model.learn(sent, attempt, Fate.ACCEPTED, receipt)
            if receipt is None or not receipt.is_durable:
                self.model.object_to(f"{sent.name}: {attempt} is not durable behind its transaction")
        self.model.count("transactions")
        self.note(f"transaction of {', '.join(f'{attempt} of {sent.name}' for sent, attempt in attempts)}")

    async def do_burst(self) -> None:
        sent = self.some_episode()
        handle = self.memory.handle(sent.name)
        for _ in range(self.random.randrange(1, 12)):
            number, step = self.new_step(sent)
            await self.accept(sent, (number,), lambda step=step: handle.log_step(step))  # type: ignore[misc]

    async def do_nowait(self) -> None:
        sent = self.some_episode()
        handle = self.memory.handle(sent.name)
        for _ in range(self.random.randrange(1, 5)):
            number, step = self.new_step(sent)
            attempt = self.model.begin(sent, Attempt("log", (number,)))
            try:
                receipt = handle.log_step_nowait(step)
            except StepwellError as error:
                self.model.learn(sent, attempt, Fate.REFUSED)
                if isinstance(error, Closed):
                    raise
                if not isinstance(error, Busy) and not self._excused(sent, error):
                    self.model.object_to(f"{self.name}: nowait of {sent.name}: no reason for {error!r}")
                return
            self.model.learn(sent, attempt, Fate.ACCEPTED, receipt)
            self.model.count("nowait")
            self.note(f"nowait {number} of {sent.name} → {receipt.seq}")

    async def do_step_scope(self) -> None:
        sent = self.some_episode()
        number, step = self.new_step(sent)
        fails = self.random.random() < 0.3
        text = f"output {number}"
        result = StepError(f"BodyError: {text}") if fails else StepSuccess(text)
        sent.steps[number] = ExecutionStep(step.tool, step.action, step.parameters, result)
        scope = self.memory.handle(sent.name).step(step.tool, step.action, step.parameters)
        attempt = self.model.begin(sent, Attempt("log", (number,)))
        try:
            with suppress(BodyError):
                async with scope as running:
                    running.output = text
                    if fails:
                        raise BodyError(text)
        except trio.Cancelled:  # in front of the body, which has no checkpoint, or behind it: then the step is logged
            accepted = scope.receipt is not None
            self.model.learn(sent, attempt, Fate.ACCEPTED if accepted else Fate.REFUSED, scope.receipt)
            raise
        except StepwellError as error:
            self.model.learn(sent, attempt, Fate.UNKNOWN if isinstance(error, OutcomeUnknown) else Fate.REFUSED)
            if isinstance(error, OutcomeUnknown):
                self.model.hear(sent)
            if isinstance(error, Closed):
                raise
            if not self._excused(sent, error):
                self.model.object_to(f"{self.name}: a step of {sent.name}: no reason for {error!r}")
            return
        if scope.receipt is None:  # the error left with a note instead
            self.model.learn(sent, attempt, Fate.UNKNOWN)
        else:
            self.model.learn(sent, attempt, Fate.ACCEPTED, scope.receipt)

    async def do_run_scope(self) -> None:
        name = f"e{len(self.model.episodes) + 1}"
        sent = self.model.episodes[name] = Sent(name, f"task of {name}")
        outcome = self.new_outcome()
        how = self.random.choice(("set", "raise", "plain"))
        text = f"body {self.model.numbers}"
        chosen = {"set": outcome, "raise": Failure(f"BodyError: {text}"), "plain": Success("")}[how]
        start, end = Attempt("start"), Attempt("end", outcome=chosen)
        self.model.begin(sent, start)
        scope = self.memory.episode(sent.task, episode_id=name)
        before: list[Attempt] = []
        try:
            async with scope as episode:
                self.model.learn(sent, start, Fate.STORED)
                try:
                    await self._run_body(sent, end, episode)
                finally:
                    sent.is_being_left = True
                before = self._accepted(sent)
                if how == "set":
                    episode._set(outcome)
                if how == "raise":
                    raise BodyError(text)
        except BodyError as error:
            if getattr(error, "__notes__", []):
                self.model.hear(sent)
        except trio.Cancelled:
            self.model.hear(sent)  # by a note
            self._scope_left(sent, start, end, None)
            raise
        except StepwellError as error:
            self.model.hear(sent)
            self._scope_left(sent, start, end, error)
            if isinstance(error, Closed):
                raise
            if not isinstance(error, OutcomeUnknown) and not self._excused(
                sent, error
            ):  # a slow medium takes the grace
                self.model.object_to(f"{self.name}: the run scope of {name}: no reason for {error!r}")
            return
        finally:
            sent.is_being_left = False
        if scope.completed is not None:
            self.model.learn(sent, end, Fate.STORED if scope.completed.outcome == chosen else Fate.UNKNOWN)
            self.model.check_told(sent, before, "a run scope")
            self.model.count("run scopes")
        elif not sent.was_asked_to("delete"):
            # What the body raised leaves unchanged, also where the ending could not be written.
            self.model.learn(sent, end, Fate.UNKNOWN)

    async def _run_body(self, sent: Sent, end: Attempt, episode: EpisodeHandle) -> None:
        self.model.begin(sent, end)
        # How it ends if it is cancelled, if its steps are lost, or if the memory is closed meanwhile.
        for other in (Interrupted("the run was interrupted (Cancelled)", cause="cancelled"), CLOSED_EARLY):
            self.model.begin(sent, Attempt("end", outcome=other, fate=Fate.UNKNOWN))
        for _ in range(self.random.randrange(4)):
            number, step = self.new_step(sent)
            await self.accept(sent, (number,), lambda step=step: episode.log_step(step))  # type: ignore[misc]
            if self.random.random() < 0.3:
                await trio.sleep(self.random.expovariate(100))

    def _scope_left(self, sent: Sent, start: Attempt, end: Attempt, error: StepwellError | None) -> None:
        if start.fate is Fate.UNDER_WAY:
            definite = isinstance(error, Rejected | InvalidState | NotFound)
            self.model.learn(sent, start, Fate.REFUSED if definite else Fate.UNKNOWN)
        elif end.fate is Fate.UNDER_WAY:
            self.model.learn(sent, end, Fate.UNKNOWN)
        if isinstance(error, LogFull | OutcomeUnknown):
            failure = Failure(f"{type(error).__name__}: {error}")
            self.model.begin(sent, Attempt("end", outcome=failure, fate=Fate.UNKNOWN))

    async def do_complete(self) -> None:
        await self._complete(self.some_episode(), self.new_outcome())

    async def do_complete_again(self) -> None:
        ended = [sent for sent in self.model.episodes.values() if sent.was_asked_to("end")]
        if ended:
            sent = self.random.choice(ended)
            known = [attempt.outcome for attempt in sent.attempts if attempt.outcome is not None]
            outcome = self.random.choice(known) if self.random.random() < 0.7 else self.new_outcome()
            await self._complete(sent, outcome)

    async def _complete(self, sent: Sent, outcome: TaskOutcome) -> None:
        before = self._accepted(sent)
        done = await self.call(
            sent, Attempt("end", outcome=outcome), lambda: self.memory.complete_episode(sent.name, outcome)
        )
        if done is not None:
            if done.outcome != outcome or not done.receipt.is_durable:
                self.model.object_to(f"{sent.name}: completing it with {outcome!r} gave {done!r}")
            self._check_settled(sent, before, "completing it")
            self.model.check_told(sent, before, "completing it")

    async def do_abandon(self) -> None:
        sent = self.some_episode()
        outcome = Interrupted(f"nobody wants {sent.name}", cause="abandoned")
        await self.call(
            sent, Attempt("end", outcome=outcome), lambda: self.memory.abandon(sent.name, f"nobody wants {sent.name}")
        )

    async def do_resume(self) -> None:
        sent = self.some_episode()
        handle = await self.call(sent, None, lambda: self.memory.resume(sent.name))
        if handle is not None and handle.id != sent.name:
            self.model.object_to(f"resuming {sent.name} gave {handle}")

    def _accepted(self, sent: Sent) -> list[Attempt]:
        return [a for a in sent.attempts if a.what == "log" and a.receipt is not None and a.fate is Fate.ACCEPTED]

    def _check_settled(self, sent: Sent, before: list[Attempt], behind: str) -> None:
        for attempt in before:
            self.model.look_at_receipt(sent, attempt)
            if attempt.fate is Fate.ACCEPTED and not self.setting.troubled() and not self.setting.in_a_hurry:
                self.model.object_to(f"{sent.name}: {attempt} is not durable behind {behind}")

    async def do_flush(self) -> None:
        await self._flush(None)

    async def do_flush_one(self) -> None:
        await self._flush(self.some_episode())

    async def _flush(self, sent: Sent | None) -> None:
        flushed = list(self.model.episodes.values()) if sent is None else [sent]
        before = [(one, self._accepted(one)) for one in flushed]
        flush = self.memory.flush if sent is None else lambda: self.memory.flush_steps(sent.name)
        if await self.call(sent, None, lambda: self._done(flush())) is not None:
            for one, attempts in before:
                self._check_settled(one, attempts, "a flush")
                self.model.check_told(one, attempts, "a flush")

    async def do_flush_late(self) -> None:
        """Steps that nobody waits for have a fate by the time somebody asks whether everything is durable."""
        sent = self.some_episode()
        for _ in range(self.random.randrange(1, 4)):
            number, step = self.new_step(sent)
            await self.accept(sent, (number,), lambda step=step: self.memory.log_step(sent.name, step))  # type: ignore[misc]
        await trio.sleep(self.random.choice((0.1, 1.0, 5.0)))
        if self.random.random() < 0.2:
            await self._complete(sent, self.new_outcome())
        else:
            await self._flush(self.random.choice((sent, None)))

    async def do_wait(self) -> None:
        sent = self.some_episode()
        if before := self._accepted(sent):
            attempt = self.random.choice(before)
            assert attempt.receipt is not None
            try:
                await attempt.receipt.wait_durable()
            except OutcomeUnknown as error:
                self.model.hear(sent, attempt.receipt)
                self.model.learn(sent, attempt, Fate.UNKNOWN)
                if not self._excused(sent, error):
                    self.model.object_to(f"{sent.name}: no reason for {error!r} of {attempt}")
            else:
                self._check_settled(sent, [attempt], "waiting for it")

    async def do_get(self) -> None:
        sent = self.some_episode()
        before, shown = self._accepted(sent), dict(sent.shown)
        episode = await self.call(sent, None, lambda: self.memory.get_episode(sent.name))
        if episode is not None:
            self.model.check_episode(episode, shown)
            self._check_settled(sent, before, "get_episode")
            seen = {step.parameters["n"] for step in episode.steps}
            for attempt in before:
                if attempt.fate is Fate.STORED and not seen.issuperset(attempt.numbers):
                    self.model.object_to(f"{sent.name}: get_episode does not show {attempt}, which was accepted before")
            self.model.count("episodes read")

    async def do_events(self) -> None:
        sent = self.some_episode()
        after = self.random.choice((0, 0, self.random.randrange(20)))

        async def made() -> list[Any]:
            return [event async for event in self.memory.events(sent.name, after)]

        shown = dict(sent.shown)
        events = await self.call(sent, None, made)
        if events is not None and after == 0:
            self.model.check_events(sent.name, events, shown)
        elif events is not None and [event.seq for event in events] != list(range(after + 1, after + 1 + len(events))):
            self.model.object_to(f"{sent.name}: events behind {after} are {events}")

    async def do_open_episodes(self) -> None:
        over = {sent.name for sent in self.model.episodes.values() if sent.outcome is not None or sent.is_deleted}
        found = await self.call(None, None, self.memory.open_episodes)
        for episode in found or ():
            if episode.episode_id in over or episode.episode_id not in self.model.episodes:
                self.model.object_to(f"{episode.episode_id} is said to be open")

    async def do_delete(self) -> None:
        sent = self.some_episode()
        await self.call(sent, Attempt("delete"), lambda: self._done(self.memory.delete_episode(sent.name)))

    async def do_purge(self) -> None:
        sent = self.some_episode()
        attempt = self.model.begin(sent, Attempt("delete"))
        try:
            await self.memory.delete_episode(sent.name, purge=True)
        except (StepwellError, OSError) as error:
            # Whether it was deleted, and the purging behind it failed, does not follow from the error.
            self.model.learn(sent, attempt, Fate.UNKNOWN)
            if isinstance(error, Closed):
                raise
            if not self.setting.troubled() and not self._excused(sent, error):
                self.model.object_to(f"{self.name}: purging {sent.name}: no reason for {error!r}")
        except trio.Cancelled:
            self.model.learn(sent, attempt, Fate.UNKNOWN)
            raise
        else:
            self.model.learn(sent, attempt, Fate.STORED)
            self.model.count("purges")

    async def do_compact(self) -> None:
        try:
            if await self.call(None, None, self.memory.compact) is not None:
                self.model.count("compactions")
        except OSError:
            if not self.setting.troubled():
                raise

    async def do_crash(self) -> None:
        """The task of an episode fails, as it would for an error in it."""
        cells = self.memory._supervisor.cells
        alive = [name for name, cell in cells.items() if cell.accepting and self.setting.crashes[name] < CRASHES]
        if alive:
            name = self.random.choice(alive)
            self.setting.crashes[name] += 1
            self.note(f"the task of {name} fails")
            self.model.count("crashes of an episode's task")
            cell = cells[name]
            if self.random.random() < 0.5:
                cell.drain()
            cell.failure = Crash(name)
            cell.wake()

    async def do_sleep(self) -> None:
        await trio.sleep(self.random.choice((0.001, 0.01, 0.1, 2.0)) * self.random.random())
