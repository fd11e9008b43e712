"""Whether the tests notice a mutant: those that are meant to, and, where they do not, all there are."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from tests.mutants.mutant import Mutant, StaleError
from tests.mutants.workshop import Answer, Workshop

WHOLE = ("tests/stepstore", "tests/journal")
SECONDS, SECONDS_OF_THE_WHOLE, SECONDS_A_TEST = 180.0, 1800.0, 30.0
"""Limits for the tests that are named, for all of them, and for one test."""

Fate = Literal["killed", "hung", "survived", "stale", "broken"]


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    "hung" counts as killed: a test waited for ever. "stale": the mutant cannot be made any more, or its tests are
    gone. "broken": the mutant cannot even be imported, so no test has shown anything. `by`: the test that failed, or
    the reason. `late`: the tests named with the mutant passed, and another one failed.
    """

    mutant: Mutant
    fate: Fate
    by: str
    seconds: float
    late: bool = False

    @property
    def is_good(self) -> bool:
        """Whether the tests noticed."""
        return self.fate in ("killed", "hung")


class BadBaselineError(Exception):
    """Tests fail without any mutant, so nothing can be said."""


def _fate_of(answer: Answer) -> tuple[Fate, str]:
    if answer.code is None:
        return "hung", answer.failed or "the time was up"
    if answer.code == 0:
        return "survived", ""
    if answer.code in (4, 5):
        return "stale", "the tests named with it do not exist"
    if "::" in answer.failed and "Timeout" in answer.message:
        return "hung", answer.failed
    if answer.code == 1 and "::" in answer.failed:
        return "killed", answer.failed
    return "broken", f"{answer.failed} {answer.message}".strip() or answer.output.strip()[-200:]


def try_mutant(workshop: Workshop, mutant: Mutant, whole: Sequence[str] = WHOLE) -> Verdict:
    """Make the mutant in the copy and run the tests."""
    began = time.monotonic()
    late = False
    try:
        with workshop.with_mutant(mutant):
            named = [mutant.tests, "-k", mutant.only] if mutant.only else [mutant.tests]
            fate, by = _fate_of(workshop.pytest(named, seconds=SECONDS, seconds_a_test=SECONDS_A_TEST))
            if fate == "survived" and whole:
                late = True
                answer = workshop.pytest(list(whole), seconds=SECONDS_OF_THE_WHOLE, seconds_a_test=SECONDS_A_TEST)
                fate, by = _fate_of(answer)
    except StaleError as error:
        fate, by = "stale", str(error)
    return Verdict(mutant, fate, by, time.monotonic() - began, late and fate != "survived")


def check_killers(workshop: Workshop, verdicts: Sequence[Verdict]) -> None:
    """The tests that failed pass without a mutant. Raises: `BadBaselineError`."""
    killers = sorted({verdict.by for verdict in verdicts if verdict.is_good and "::" in verdict.by})
    if killers:
        _check_passes(workshop, killers)


def _check_passes(workshop: Workshop, arguments: list[str]) -> None:
    answer = workshop.pytest(arguments, seconds=SECONDS_OF_THE_WHOLE, seconds_a_test=SECONDS_A_TEST)
    if answer.code != 0:
        raise BadBaselineError(answer.failed or answer.output.strip()[-500:] or "the time was up")


def try_all(
    mutants: Sequence[Mutant],
    jobs: int,
    whole: Sequence[str] = WHOLE,
    on_verdict: Callable[[Verdict], None] = lambda verdict: None,
) -> list[Verdict]:
    """Try every mutant, so many at a time, each in a copy of its own. Raises: `BadBaselineError`."""
    if not mutants:
        return []
    free: queue.SimpleQueue[Workshop] = queue.SimpleQueue()

    def attempt(mutant: Mutant) -> Verdict:
        workshop = free.get()
        try:
            return try_mutant(workshop, mutant, whole)
        finally:
            free.put(workshop)

    with ExitStack() as stack:
        workshops = [stack.enter_context(Workshop()) for _ in range(min(jobs, len(mutants)))]
        pool = stack.enter_context(ThreadPoolExecutor(len(workshops)))
        verdicts: list[Verdict] = []
        try:
            for workshop in workshops:
                free.put(workshop)
            for verdict in pool.map(attempt, mutants):
                verdicts.append(verdict)
                on_verdict(verdict)
            shares = [verdicts[number :: len(workshops)] for number in range(len(workshops))]
            list(pool.map(check_killers, workshops, shares))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for workshop in workshops:
                workshop.stop()  # so that nobody waits for the end of a test
            raise
    return verdicts
