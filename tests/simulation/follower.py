"""A follower that outlives the processes it follows: every durable event once, in log order."""

from __future__ import annotations

import trio

from stepwell import START, Closed, Event, Gap, Memory, StepwellError
from stepwell.model.event import DELETED, STEP
from stepwell.testing import Simulation
from tests.simulation.agents import Setting
from tests.simulation.model import Fate, Model


class Follower:
    """Goes on behind the last event it has seen. `pause`: seconds between two events, so that it lags behind."""

    def __init__(self, name: str, model: Model, simulation: Simulation, pause: float):
        self._name, self._model, self._simulation, self._pause = name, model, simulation, pause
        self.seen: list[Event] = []

    @property
    def position(self) -> int:
        """The number of the last event it has seen."""
        return self.seen[-1].lsn if self.seen else 0

    async def run(self, memory: Memory, setting: Setting) -> None:
        """Follow until the memory is closed."""
        cursor = self.seen[-1].cursor if self.seen else START
        try:
            async with memory.follow(cursor) as events:
                async for event in events:
                    if self._model.frozen:
                        return
                    if isinstance(event, Gap):
                        self._model.object_to(f"a follower meets damage: {event}")
                        return
                    self._see(event)
                    await trio.sleep(self._pause)
        except Closed:
            if not setting.closing and not setting.troubled():
                self._model.object_to("a follower was told that the memory is closed")
        except StepwellError as error:
            if not setting.troubled():
                self._model.object_to(f"{self._name} behind {cursor}: {error!r}")

    def _see(self, event: Event) -> None:
        model = self._model
        self._simulation.note(f"  {self._name}: {event.kind} {event.seq} of {event.stream}, lsn {event.lsn}")
        if self.seen and event.lsn <= self.seen[-1].lsn:
            model.object_to(f"a follower sees {event} behind {self.seen[-1]}")
        self.seen.append(event)
        model.count("events followed")
        if not event.stream:
            return
        sent = model.episodes.get(event.stream)
        if sent is None:
            model.object_to(f"a follower sees {event}, and nobody started it")
        elif event.kind == DELETED:
            for attempt in sent.attempts:
                if attempt.what == "delete" and attempt.fate.is_open:
                    attempt.fate = Fate.STORED
                    break
            if not sent.is_deleted:
                model.object_to(f"a follower sees {event}, and nobody deleted it")
        else:
            what = event.data["parameters"]["n"] if event.kind == STEP else event.kind
            model.show(sent, event.seq, what, event.lsn)

    def check(self, found: dict[str, list[Event]]) -> None:
        """Against what there is in the end: nothing was left out, up to where it came."""
        seen = {(event.stream, event.seq, event.lsn) for event in self.seen}
        for name, events in found.items():
            for event in events:
                if event.lsn <= self.position and (name, event.seq, event.lsn) not in seen:
                    self._model.object_to(f"{self._name} has come to {self.position} and has not seen {event}")
