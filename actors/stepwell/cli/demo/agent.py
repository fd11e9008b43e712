"""One agent at work: its program asks, the tools answer, and the memory is told of every step before the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stepwell.cli.demo.ledger import step_digest
from stepwell.cli.demo.programs import Call, Program
from stepwell.cli.demo.tools import call_tool
from stepwell.cli.output import CommandFailed
from stepwell.model.outcome import TaskOutcome
from stepwell.model.step import EpisodeStep, ExecutionStep

if TYPE_CHECKING:
    from stepwell import EpisodeHandle

OnStep = Callable[[str, int, str], None]
"""Called with episode id, seq and digest of a step once it is durable."""


async def work(handle: EpisodeHandle, program: Program, past: Sequence[EpisodeStep], on_step: OnStep) -> TaskOutcome:
    """Run a program to its end, beginning behind the steps that the memory holds already.

    Every step is durable before the next tool is called. Returns how the task ended; writes no ending.

    Raises:
        CommandFailed: a step in `past` is not what the program asked for at that point.
    """
    number = 0
    try:
        call = next(program)
        for step in past:
            _check_same(handle.id, call, step)
            number += 1
            assert step.result is not None
            call = program.send(step.result)
        while True:
            result, latency_ms = call_tool(call.tool, call.parameters)
            number += 1
            step_made = ExecutionStep(
                tool=call.tool,
                action=call.action,
                parameters=call.parameters,
                result=result,
                latency_ms=latency_ms,
                thought=call.thought,
                step_number=number,
            )
            receipt = await handle.log_step(step_made)
            await receipt.wait_durable()
            on_step(handle.id, receipt.seq, step_digest(step_made))
            call = program.send(result)
    except StopIteration as stop:
        if number < len(past):
            raise CommandFailed(
                f"{handle.id}: the log holds {len(past)} steps, the agent's program ends after {number}"
            ) from None
        outcome: TaskOutcome = stop.value
        return outcome


def _check_same(episode_id: str, call: Call, step: EpisodeStep) -> None:
    if (step.tool, step.parameters) != (call.tool, call.parameters):
        raise CommandFailed(
            f"{episode_id}: the log says that step {step.step_number} called {step.tool} {step.parameters}, "
            f"but the agent's program calls {call.tool} {call.parameters} there"
        )
