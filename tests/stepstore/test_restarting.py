"""What fails is run again, later each time, and parked when that does not help."""

from __future__ import annotations

import itertools
import logging
import random

import pytest
import trio
from trio.testing import MockClock

from stepstore.notices import Notices
from stepstore.restarting import LONGEST_TEXT, Backoff, RestartPolicy, Service, error_text

NO_JITTER = RestartPolicy(uniform=lambda low, high: (low + high) / 2)


class Failure(Exception):
    """Raised by the work of these tests."""


class Unspeakable(Exception):
    """Cannot show itself."""

    def __repr__(self) -> str:
        raise RuntimeError("not even this")


def test_delays_double_from_a_fifth_of_a_second_to_half_a_minute() -> None:
    assert [NO_JITTER.delay(n) for n in range(1, 11)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]
    assert NO_JITTER.delay(10_000) == 30


def test_jitter_is_a_fifth_up_or_down_and_the_same_from_the_same_source() -> None:
    def delays(seed: int) -> list[float]:
        return [RestartPolicy(uniform=random.Random(seed).uniform).delay(1) for _ in range(3)]

    assert delays(5) == delays(5) != delays(6)
    many = RestartPolicy(uniform=random.Random(1).uniform)
    found = [many.delay(1) for _ in range(2_000)]
    assert 0.16 <= min(found) < 0.162
    assert 0.238 < max(found) <= 0.24


def test_the_sixth_failure_in_a_row_parks() -> None:
    backoff = Backoff(NO_JITTER)
    delays = []
    for _ in range(6):
        backoff.begin(0.0, 1)
        delays.append(backoff.failed(0.0, 1))
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, None]
    assert backoff.failures == 6


@pytest.mark.parametrize("lasted, progress, resets", [(60.0, 1, False), (60.1, 1, True), (0.0, 2, True)])
def test_what_was_achieved_or_has_lived_for_a_minute_begins_a_new_row(
    lasted: float, progress: int, resets: bool
) -> None:
    backoff = Backoff(NO_JITTER)
    for _ in range(5):
        backoff.begin(100.0, 1)
        backoff.failed(100.0, 1)
    backoff.begin(200.0, 1)
    assert backoff.failed(200.0 + lasted, progress) == (0.2 if resets else None)


def test_an_error_is_told_in_one_line_also_if_it_cannot_show_itself() -> None:
    assert error_text(ValueError("a\n  b")) == r"ValueError('a\n b')"
    assert error_text(Unspeakable()) == "Unspeakable (it cannot be shown)"
    assert len(error_text(ValueError("x" * 10_000))) == LONGEST_TEXT


class Told:
    """What a service told, and when."""

    def __init__(self) -> None:
        self.notices = Notices()
        self.notices.listener = self.take
        self.kinds: list[str] = []
        self.times: list[float] = []

    def take(self, kind: str, service: str | None, detail: str) -> None:
        assert service == "worker"
        assert "worker" in detail
        self.kinds.append(kind)
        self.times.append(trio.current_time())


async def test_a_service_is_restarted_with_backoff_then_parked_and_its_error_stays_readable(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    told, parked = Told(), list[Exception]()
    began: list[float] = []

    async def work() -> None:
        began.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        raise Failure(str(len(began)))

    service = Service("worker", work, policy=NO_JITTER, notices=told.notices, on_parked=parked.append)
    assert service.state == "waiting"
    with caplog.at_level(logging.WARNING, "stepstore.log"):
        await service.run()
    assert (service.state, service.restarts, repr(service.error)) == ("parked", 5, "Failure('6')")
    assert parked == [service.error]
    gaps = [later - earlier for earlier, later in itertools.pairwise(began)]
    assert gaps == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2])
    assert told.kinds == ["service_failed", "service_restarted"] * 5 + ["service_parked"]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 5 + ["ERROR"]


async def test_a_service_that_gets_on_between_its_failures_is_never_parked(autojump_clock: MockClock) -> None:
    done = 0

    async def work() -> None:
        nonlocal done
        await trio.lowlevel.checkpoint()
        done += 1
        if done < 20:
            raise Failure

    service = Service("worker", work, policy=NO_JITTER, notices=Notices(), progress=lambda: done)
    await service.run()
    assert (done, service.state, service.restarts) == (20, "ended", 19)


async def test_a_service_cancelled_while_it_waits_to_run_again_ends(autojump_clock: MockClock) -> None:
    async def work() -> None:
        await trio.lowlevel.checkpoint()
        raise Failure

    service = Service("worker", work, policy=NO_JITTER, notices=Notices())
    with trio.move_on_after(0.1) as scope:
        await service.run()
    assert scope.cancelled_caught
    assert (service.state, service.restarts) == ("ended", 0)
    assert isinstance(service.error, Failure)


async def test_a_service_whose_error_cannot_be_shown_is_parked_like_any_other(autojump_clock: MockClock) -> None:
    async def work() -> None:
        await trio.lowlevel.checkpoint()
        raise Unspeakable

    service = Service("worker", work, policy=NO_JITTER, notices=Notices())
    await service.run()
    assert service.state == "parked"


async def test_what_ends_the_process_ends_a_service_as_well() -> None:
    async def work() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    service = Service("worker", work, policy=NO_JITTER, notices=Notices())
    with pytest.raises(KeyboardInterrupt):
        await service.run()
    assert service.state == "ended"
