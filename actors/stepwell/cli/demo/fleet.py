"""The process that is killed: a fleet of agents on one memory, telling its parent what is durable.

Run as `python -m stepwell.cli.demo.fleet '{"dir": …, "agents": …, "seed": …}'`; prints acknowledgements (`ledger`) on
stdout until it is killed, or until its stdin ends: a fleet does not outlive its parent.
"""

from __future__ import annotations

import json
import os
import sys

import trio

from stepwell import Memory, TaskContext, open_memory
from stepwell.cli.demo.agent import work
from stepwell.cli.demo.ledger import acknowledgement
from stepwell.cli.demo.plan import Assignment, plan_fleet
from stepwell.model.outcome import Abstained, Failure, PartialSuccess, Success, outcome_kind


class Acknowledgements:
    """The pipe to the parent. A line is put here only when what it says is durable, and soon sent."""

    def __init__(self, descriptor: int):
        self._stream = trio.lowlevel.FdStream(descriptor)
        self._lines: list[bytes] = []
        self._something = trio.Event()

    def say(self, kind: str, *said: str | int) -> None:
        """Acknowledge one thing."""
        self._lines.append(acknowledgement(kind, *said))
        self._something.set()

    def step(self, episode_id: str, seq: int, digest: str) -> None:
        """Acknowledge one step."""
        self.say("step", episode_id, seq, digest)

    async def send(self) -> None:
        """Send what is said, batch by batch, until cancelled."""
        while True:
            await self._something.wait()
            self._something = trio.Event()
            lines, self._lines = self._lines, []
            await self._stream.send_all(b"".join(lines))


async def run_fleet(directory: str, agents: int, seed: int, acknowledgements: Acknowledgements) -> None:
    """Run a whole fleet, then wait to be killed."""
    plan = plan_fleet(agents, seed)
    async with open_memory(directory) as memory, trio.open_nursery() as nursery:
        nursery.start_soon(acknowledgements.send)
        nursery.start_soon(_end_with_parent)
        async with trio.open_nursery() as fleet:
            for assignment in plan:
                agent = _work_in_scope if assignment.scoped else _work_with_handle
                fleet.start_soon(agent, memory, assignment, acknowledgements)
        acknowledgements.say("finished")
        await trio.sleep_forever()


def task_context(assignment: Assignment) -> TaskContext:
    """The context of an agent's task."""
    return TaskContext(language="python", domain="code-audit", tags=["stepwell-demo", assignment.program])


async def _work_with_handle(memory: Memory, assignment: Assignment, acknowledgements: Acknowledgements) -> None:
    handle = await memory.start_episode(
        assignment.task,
        context=task_context(assignment),
        task_type="analysis",
        agent=assignment.agent,
        episode_id=assignment.episode_id,
        metadata=assignment.metadata,
    )
    acknowledgements.say("started", handle.id)
    outcome = await work(handle, assignment.start_program(), (), acknowledgements.step)
    await handle.complete(outcome)
    acknowledgements.say("ended", handle.id, outcome_kind(outcome))


async def _work_in_scope(memory: Memory, assignment: Assignment, acknowledgements: Acknowledgements) -> None:
    async with memory.episode(
        assignment.task,
        context=task_context(assignment),
        task_type="analysis",
        agent=assignment.agent,
        episode_id=assignment.episode_id,
        metadata=assignment.metadata,
    ) as episode:
        acknowledgements.say("started", episode.id)
        outcome = await work(episode, assignment.start_program(), (), acknowledgements.step)
        if isinstance(outcome, Success):
            episode.succeed(outcome.verdict)
        elif isinstance(outcome, PartialSuccess):
            episode.partially(outcome.verdict, completed=outcome.completed, failed=outcome.failed)
        elif isinstance(outcome, Failure):
            episode.fail(outcome.reason, error_details=outcome.error_details)
        elif isinstance(outcome, Abstained):
            episode.abstain(outcome.reason)
    acknowledgements.say("ended", assignment.episode_id, outcome_kind(outcome))


async def _end_with_parent() -> None:
    """The parent holds the other end of stdin: when it is gone, nobody is left to acknowledge to."""
    data = b"?"
    while data:
        await trio.lowlevel.wait_readable(0)
        data = os.read(0, 1)
    os._exit(1)


def main() -> None:
    """Run the fleet that the command line describes."""
    asked = json.loads(sys.argv[1])
    # The acknowledgements get the pipe to themselves: what a library prints while its examples run goes to stderr.
    pipe = os.dup(1)
    os.dup2(2, 1)
    acknowledgements = Acknowledgements(pipe)
    trio.run(run_fleet, asked["dir"], asked["agents"], asked["seed"], acknowledgements)


if __name__ == "__main__":
    main()
