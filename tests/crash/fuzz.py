"""Feed recovery with hostile files: only declared errors, at most 64 MiB of growth and one second of work each.

    python -m tests.crash.fuzz [--short] [--seed N] [--jobs N] [--json] [--inputs N] [--coverage N]
    python -m tests.crash.fuzz --replay WORD

An input is a log changed at random or with intent, its checksums perhaps made right again (`hostile`). It is verified,
looked at, opened for writing with tail="strict" and with tail="cut", read wholly each time, and opened again: what was
served once must be served again. Hypothesis makes the inputs; in the long form then atheris, guided by the coverage of
`stepstore` (skipped, loudly, where it cannot be had). A failing input is minimised and printed as a word to replay.

The limit of growth is one of the address space, set anew for each input; tracemalloc says of a sample how much it was.
The short form takes 20,000 inputs with fixed seeds, so it sees the same ones in every run.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st

from tests.crash.hostile import Input, compose
from tests.crash.survival import CPU_SECONDS, SLOW, Survived, minimise, pack, peak_of, survive, unpack
from tests.crash.sweep import Tally, conclude, parser_for, sweep

SHORT, LONG, COVERAGE = 20_000, 800_000, 200_000
SHORT_SEED = 20240229
CHUNK = 500
BRIEF_SECONDS, MINIMISE_SECONDS = 0.2, 20.0
SAMPLED_EVERY = 200
"""Of one in so many inputs the memory is measured exactly."""


class DrawnDice:
    """Dice thrown by hypothesis."""

    def __init__(self, draw: st.DrawFn):
        self._draw = draw

    def below(self, bound: int) -> int:
        return self._draw(_numbers(bound))

    def blob(self, size: int) -> bytes:
        return self._draw(_blobs(size))


@functools.cache
def _numbers(bound: int) -> st.SearchStrategy[int]:
    return st.integers(0, bound - 1)


@functools.cache
def _blobs(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=size)


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    """Everything that `hostile.compose` can make."""
    return compose(DrawnDice(draw))


class Hunt:
    """Inputs fed one after another, and what became of them. `known`: kinds of failure that were minimised before."""

    def __init__(self, tally: Tally, known: set[str] | None = None) -> None:
        self.tally = tally
        self._known = set() if known is None else known

    def feed(self, what: Input) -> Survived:
        """Feed one input and count what happens; its failure is for the caller to tell."""
        began = time.process_time()
        # What is known to hang is not waited for a second each time.
        hurried = any(signature.startswith(SLOW) for signature in self._known)
        survived = survive(what, BRIEF_SECONDS if hurried else CPU_SECONDS)
        if hurried and survived.is_slow and survived.signature not in self._known:
            survived = survive(what)
        if not survived.is_slow:
            self.tally.peak("CPU ms of one input", (time.process_time() - began) * 1000)
        self.tally.cases += 1
        self.tally.seen.update(survived.outcomes)
        if not survived.signature and self.tally.cases % SAMPLED_EVERY == 0:
            self.tally.peak("MiB of Python objects of one input (sample)", peak_of(what) / 2**20)
        return survived

    def is_known(self, survived: Survived) -> bool:
        """Whether there was no failure, or one like an earlier one, which is counted."""
        if survived.signature in self._known:
            self.tally.violations[survived.signature] += 1
        return not survived.signature or survived.signature in self._known

    def report(self, what: Input, survived: Survived) -> None:
        """Minimise the first input of a kind of failure and note it."""
        signature, failure = survived.signature, survived.failure
        self._known.add(signature)
        seconds = BRIEF_SECONDS if survived.is_slow else CPU_SECONDS

        def fails(candidate: Input) -> bool:
            nonlocal failure
            found = survive(candidate, seconds)
            if found.signature == signature:
                failure = found.failure
            return found.signature == signature

        small = minimise(what, fails, seconds=MINIMISE_SECONDS)
        if survived.is_slow and survive(small).signature != signature:
            small = what  # merely slow, where the first one was too slow
        last_line = failure.strip().splitlines()[-1]
        self.tally.violation(f"{last_line}\n      python -m tests.crash.fuzz --replay '{pack(small)}'", signature)

    def try_one(self, what: Input) -> None:
        """Feed one input; minimise and note a failure of a new kind."""
        survived = self.feed(what)
        if not self.is_known(survived):
            self.report(what, survived)

    def with_hypothesis(self, count: int, seed: int) -> None:
        """Feed `count` inputs that hypothesis makes. Shrinking is left to `minimise`, which knows what files are."""

        @with_seed(seed)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
            phases=(Phase.generate,),
        )
        @given(inputs())
        def feed_it(what: Input) -> None:
            self.try_one(what)

        feed_it()


_KNOWN: set[str] = set()
"""Kinds of failure that this process has minimised."""


def feed_chunks(chunks: Sequence[tuple[int, int]]) -> Tally:
    """Feed so many inputs from each seed: (count, seed)."""
    hunt = Hunt(Tally(), _KNOWN)
    for count, seed in chunks:
        hunt.with_hypothesis(count, seed)
    return hunt.tally


def cover(runs: int, seed: int, jobs: int) -> Tally:
    """Feed inputs guided by coverage, in processes of their own, since libFuzzer takes over the one it runs in."""
    total = Tally()
    if not _have_atheris():
        total.seen["SKIPPED: no atheris for this Python, so no inputs were guided by coverage"] += 1
        return total
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="stepwell-fuzz-"))
        outs = [Path(directory, f"{job}.json") for job in range(jobs)]
        # Into files: a process whose pipe nobody empties, while another one is waited for, stands still.
        errors = [stack.enter_context(Path(directory, f"{job}.err").open("w+")) for job in range(jobs)]
        command = [sys.executable, "-m", "tests.crash.fuzz_coverage"]
        running = [
            subprocess.Popen([*command, str(runs // jobs), str(seed + job), str(out)], stderr=error)
            for job, (out, error) in enumerate(zip(outs, errors, strict=True))
        ]
        for process, out, error in zip(running, outs, errors, strict=True):
            if process.wait() or not out.exists():
                error.seek(0)
                said = error.read()[-4000:]
                raise SystemExit(f"the coverage-guided fuzzer ended with {process.returncode}:\n{said}")
            total.add(Tally.from_json(json.loads(out.read_text())))
    return total


def _have_atheris() -> bool:
    if importlib.util.find_spec("atheris") is None and sys.prefix != sys.base_prefix:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "atheris"]
        subprocess.run(install, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        importlib.invalidate_caches()
    return importlib.util.find_spec("atheris") is not None


def replay(word: str) -> int:
    """Feed one input and say how it goes."""
    survived = survive(unpack(word))
    print(survived.failure or "\n".join(survived.outcomes))
    return 1 if survived.signature else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Feed, and print what was seen; the exit status is 1 if anything failed."""
    parser = parser_for("fuzz", __doc__, f"{SHORT:,} inputs with fixed seeds, none guided by coverage")
    parser.add_argument("--inputs", type=int, default=None, help=f"made by hypothesis (default: {LONG:,})")
    parser.add_argument("--coverage", type=int, default=None, help=f"guided by coverage (default: {COVERAGE:,})")
    parser.add_argument("--replay", default=None, metavar="WORD", help="feed one input, as printed by a failing run")
    options = parser.parse_args(arguments)
    if options.replay is not None:
        return replay(options.replay)
    count = options.inputs if options.inputs is not None else SHORT if options.short else LONG
    guided = options.coverage if options.coverage is not None else 0 if options.short else COVERAGE
    seed = options.seed
    if seed is None:
        seed = SHORT_SEED if options.short else random.randrange(2**32)
    began = time.monotonic()
    if not options.json:
        print(f"fuzzing recovery: {count:,} inputs, {guided:,} more guided by coverage, seed {seed}", flush=True)
    dice = random.Random(seed)
    chunks = [(min(CHUNK, count - start), dice.randrange(2**32)) for start in range(0, count, CHUNK)]
    tally = sweep(chunks, feed_chunks, jobs=options.jobs, chunk=1, total=count)
    if guided:
        tally.add(cover(guided, seed % 2**31, options.jobs))
    return conclude("fuzz", tally, began, as_json=options.json, seed=seed, inputs=count, guided=guided)


if __name__ == "__main__":
    sys.exit(main())
