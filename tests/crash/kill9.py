"""A child logs under load and is killed with SIGKILL at a random moment; every acknowledged step must survive it.

    python -m tests.crash.kill9 --rounds 50 [--seed N] [--dir DIR] [--short]

All rounds share one log, so each reopening recovers what all the killed children before it left. What a step of an
episode says follows from the episode's name and the step's number alone, so the parent can tell a lost step from a
changed, a doubled, a displaced and an invented one. SIGKILL cannot see a missing fsync; the tests on the in-memory
file layer do.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from stepwell import Episode, ExecutionStep, StepSuccess, Success, open_memory

AGENTS = 40


def step_of(episode_id: str, number: int) -> ExecutionStep:
    """The `number`-th step (from 0) of an episode: content of varying size, with runs of NULs now and then."""
    digest = hashlib.sha256(f"{episode_id}/{number}".encode()).digest()
    size = int.from_bytes(digest[:2], "big") % (20_000 if digest[2] < 4 else 600)
    output = digest.hex() + "\0" * (size if digest[3] < 20 else 0) + "x" * size
    return ExecutionStep("tool", f"step {number}", {"n": number}, StepSuccess(output))


@dataclass
class Verdict:
    """What the comparison of acknowledged and recovered steps found; each list must be empty."""

    acknowledged: int = 0
    recovered: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.duplicated or self.out_of_order or self.invented)


def check(acknowledged: dict[str, int], episodes: Iterable[Episode]) -> Verdict:
    """Compare: `acknowledged` says how many steps of each episode were acknowledged as durable, in order."""
    verdict = Verdict(acknowledged=sum(acknowledged.values()))
    seen: set[str] = set()
    for episode in episodes:
        seen.add(episode.episode_id)
        verdict.recovered += len(episode.steps)
        numbers = [item.parameters.get("n", -1) for item in episode.steps]
        if len(set(numbers)) != len(numbers):
            verdict.duplicated.append(episode.episode_id)
        if numbers != sorted(numbers):
            verdict.out_of_order.append(episode.episode_id)
        for number, item in zip(numbers, episode.steps, strict=True):
            sent = step_of(episode.episode_id, number)
            if (item.tool, item.action, item.parameters, item.result) != (
                sent.tool,
                sent.action,
                sent.parameters,
                sent.result,
            ):
                verdict.invented.append(f"{episode.episode_id} step {number}")
        missing = set(range(acknowledged.get(episode.episode_id, 0))) - set(numbers)
        verdict.lost += [f"{episode.episode_id} step {number}" for number in sorted(missing)]
        # What was accepted behind the last acknowledgement may be there, but only as a prefix of what was sent.
        if numbers and max(numbers) + 1 != len(set(numbers)) and not missing:
            verdict.invented.append(f"{episode.episode_id}: a hole")
    verdict.lost += [f"{name} (all of it)" for name, count in acknowledged.items() if count and name not in seen]
    return verdict


# ---- the child -------------------------------------------------------------------------------------------------------


async def child(directory: str, round_number: int, seed: int) -> None:
    """Log with many agents in different ways; print `<episode> <steps durable>` after each durable acknowledgement."""

    def acknowledge(episode_id: str, count: int) -> None:
        os.write(1, f"{episode_id} {count}\n".encode())

    async with open_memory(directory) as memory:

        async def agent(number: int) -> None:
            rng = random.Random(f"{seed}/{round_number}/{number}")
            for run in range(1000):
                name = f"r{round_number}-a{number}-{run}"
                handle = await memory.start_episode("log until killed", episode_id=name)
                acknowledge(name, 0)
                sent = 0
                while sent < 60:
                    if number % 3 == 0:  # one step, wait, again
                        await (await handle.log_step(step_of(name, sent))).wait_durable()
                        sent += 1
                    elif number % 3 == 1:  # an atomic batch
                        count = rng.randrange(1, 12)
                        receipt = await handle.log_steps([step_of(name, sent + n) for n in range(count)])
                        await receipt.wait_durable()
                        sent += count
                    else:  # many steps, a flush now and then
                        for _ in range(rng.randrange(1, 40)):
                            await handle.log_step(step_of(name, sent))
                            sent += 1
                        await handle.flush()
                    acknowledge(name, sent)
                await handle.complete(Success())

        async with trio.open_nursery() as nursery:
            for number in range(AGENTS):
                nursery.start_soon(agent, number)


# ---- the parent ------------------------------------------------------------------------------------------------------


def run_round(directory: str, round_number: int, seed: int, acknowledged: dict[str, int]) -> None:
    """Start a child, let it work for a random time, kill it, and note what it acknowledged."""
    rng = random.Random(f"{seed}/{round_number}")
    command = [sys.executable, "-m", "tests.crash.kill9", "--child", directory, str(round_number), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        if not first:
            raise SystemExit(f"the child of round {round_number} ended by itself with {process.wait()}")
        killer = time.monotonic() + rng.uniform(0.005, 0.35)
        os.set_blocking(process.stdout.fileno(), False)
        output = [first]
        while (left := killer - time.monotonic()) > 0:
            time.sleep(min(left, 0.01))
            output.append(process.stdout.read() or b"")
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.set_blocking(process.stdout.fileno(), True)
        output.append(process.stdout.read())
    lines = b"".join(output).split(b"\n")[:-1]  # a line cut off by the kill is no acknowledgement
    for line in lines:
        name, count = line.decode().split()
        acknowledged[name] = max(int(count), acknowledged.get(name, 0))


async def recover(directory: str) -> tuple[list[Episode], float, int]:
    """Reopen the log and read every episode."""
    async with open_memory(directory) as memory:
        episodes = [await memory.get_episode(name) async for name in memory.episode_ids()]
        return episodes, memory.recovery.seconds, memory.recovery.bytes_cut


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rounds; the exit status is 1 if any step was lost, doubled, displaced or invented."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.kill9", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--short", action="store_true", help="12 rounds")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--dir", default=None, help="keep the log here (default: a temporary directory)")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        trio.run(child, options.child[0], int(options.child[1]), int(options.child[2]))
        return 0
    rounds = 12 if options.short else options.rounds
    seed = random.randrange(2**32) if options.seed is None else options.seed
    directory = options.dir or tempfile.mkdtemp(prefix="stepwell-kill9-")
    print(f"kill -9, {rounds} rounds, {AGENTS} agents, seed {seed}", flush=True)
    acknowledged: dict[str, int] = {}
    total = Verdict()
    cut = 0
    slowest = 0.0
    try:
        for number in range(rounds):
            run_round(directory, number, seed, acknowledged)
            episodes, seconds, bytes_cut = trio.run(recover, directory)
            cut += bool(bytes_cut)
            slowest = max(slowest, seconds)
            total = check(acknowledged, episodes)
            if not total.sound:
                print(f"round {number}: {total}")
                return 1
    finally:
        if options.dir is None:
            shutil.rmtree(Path(directory), ignore_errors=True)
    print(
        f"{total.acknowledged:,} steps acknowledged, {total.recovered:,} recovered in {len(acknowledged):,} episodes; "
        f"torn tails cut: {cut}; slowest recovery {slowest * 1000:.0f} ms"
    )
    print("0 acknowledged steps lost, 0 duplicated, 0 out of order, 0 invented")
    return 0


if __name__ == "__main__":
    sys.exit(main())
