"""An agent that uses all three memories, and can be killed between any two of its steps.

python examples/remembering_agent.py DIRECTORY [--kill-after N]

What it has done stands in its run, what was said in its thread, what it has learned among the facts; each step changes
all of them in one commit. So the next start finds out from the memory alone where it stopped, and goes on. With
`--kill-after N` it kills itself (as `kill -9` does) after N steps of this start.
"""

from __future__ import annotations

import argparse
import os
import signal

import trio

from stepwell import Fact, Memory, Message, Role, Scope, events, open_memory

RUN, THREAD = "shopping-run", "shopping"
ASKED = "What do apples, pears and plums cost together?"
PRICES = {"apples": 3, "pears": 4, "plums": 5}
SCOPE = Scope.agent("shopper")


class Agent:
    """Asks a tool for one price after the other, and adds them up."""

    def __init__(self, memory: Memory, kill_after: int | None):
        self.memory, self.steps_left = memory, kill_after

    async def run(self) -> str:
        """Go on from where the run stands, to its end. Gives the answer."""
        done = await self.memory.episodic.replay(RUN)
        if not done:
            await self.step(events.Started(agent="shopper"), said=Message(Role.USER, ASKED))
        found = {
            event.args["what"]: event.result.value
            for event in done
            if isinstance(event, events.ToolCall) and isinstance(event.result, events.ToolOk)
        }
        for what in PRICES:
            if what not in found:
                found[what] = await self.look_up(what)
        answer = f"Together they cost {sum(found.values())}."
        if not any(isinstance(event, events.Completed) for event in done):
            await self.step(events.Completed(), said=Message(Role.ASSISTANT, answer))
        return answer

    async def look_up(self, what: str) -> int:
        """Call the tool, and remember what it says: for this run, in the conversation, and for later."""
        call_id = f"call-{what}"
        call = {"id": call_id, "name": "price", "arguments": {"what": what}}
        thread = await self.memory.short_term.load(THREAD, 1_000)
        if thread[-1].tool_calls != [call]:  # or it was killed between the call and the answer
            await self.step(
                events.LlmCall(tokens=40, latency_ms=5),
                said=Message(Role.ASSISTANT, tool_calls=[call]),
            )
        price = PRICES[what]
        await self.step(
            events.ToolCall("price", {"what": what}, events.ToolOk(price)),
            said=Message(Role.TOOL, str(price), tool_call_id=call_id),
            learned=Fact(f"{what} cost {price}", metadata={"what": what}),
        )
        return price

    async def step(self, event: events.RunEvent, *, said: Message, learned: Fact | None = None) -> None:
        """One step: in one commit it is in the run, in the thread and among the facts, or in none of them."""
        async with self.memory.atomic() as tx:
            tx.record(RUN, event)
            tx.append(THREAD, said)
            if learned is not None:
                tx.remember(SCOPE, learned)
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    """Run the agent, and show what the three memories hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory")
    parser.add_argument("--kill-after", type=int, metavar="N")
    options = parser.parse_args()
    async with open_memory(options.directory) as memory:
        print(await Agent(memory, options.kill_after).run())
        (summary,) = await memory.episodic.list_runs()
        print(f"{summary.status}, {summary.episode_count} events")
        print(f"{len(await memory.short_term.load(THREAD, 1_000))} messages")
        print("; ".join(fact.text for fact in await memory.long_term.recall(SCOPE, "what do pears cost", k=1)))
        print(f"{len((await memory.long_term.facts(SCOPE)).items)} facts")


if __name__ == "__main__":
    trio.run(main)
