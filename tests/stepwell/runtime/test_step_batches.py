"""Batches of steps are told apart from everything else, and count as their steps one by one do."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from stepstore.journal import Gap, Record, RecordBatch, Stored, StoredBatch
from stepwell import ExecutionStep, Limits, StepError, StepSuccess, StepTimeout
from stepwell.errors import EpisodeUnavailable
from stepwell.model.codec import PLAIN_STEP, encode_record, encode_step, is_failed_step, plain_step_time_ns
from stepwell.model.event import TAGGED
from stepwell.runtime import step_batches
from stepwell.runtime.episode_fold import EpisodeCatalogFold
from stepwell.runtime.step_batches import StepBatch, count_steps, told_apart

STREAM = b"s" * 16
NOW = 10**18
Form = Callable[..., StoredBatch | RecordBatch]
UNDECODABLE = PLAIN_STEP + bytes(8) + b"\x82\x01 is no step"
OTHER = encode_record(TAGGED, 5, {"added": ["red"], "removed": []}, None, path="tag", limit=10**6)
LOOKS_FAILED = ExecutionStep("tool", parameters={"pair": [1, 2]}, result=StepSuccess("yes"))
STEPS = {
    "succeeded": ExecutionStep("tool", result=StepSuccess("yes")),
    "failed": ExecutionStep("tool", result=StepError("no")),
    "timed out": ExecutionStep("tool", result=StepTimeout()),
    "looks failed": LOOKS_FAILED,
}


def step(kind: str, time_ns: int) -> bytes:
    return encode_step(STEPS[kind], NOW + time_ns, Limits())


def stored(payloads: Sequence[bytes], first_seq: int = 1) -> StoredBatch:
    """As it lies in a file, with something around it."""
    content = b"before" + b"".join(payloads) + b"behind"
    return StoredBatch(STREAM, first_seq, 100 + first_seq, tuple(map(len, payloads)), content, 6)


def cut(payloads: Sequence[bytes], first_seq: int = 1) -> RecordBatch:
    return RecordBatch(STREAM, first_seq, 100 + first_seq, list(payloads))


FORMS: list[Form] = [stored, cut]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kinds", [["succeeded"], ["succeeded"] * 3, ["failed", "timed out", "looks failed"]])
def test_a_batch_of_steps_is_counted(form: Form, kinds: list[str]) -> None:
    payloads = [step(kind, 10 + n) for n, kind in enumerate(kinds)]
    (found,) = told_apart([form(payloads, 4)])
    assert isinstance(found, StepBatch)
    failed = sum(kind in ("failed", "timed out") for kind in kinds)
    assert (found.stream, found.first_seq, found.last_seq) == (STREAM, 4, 3 + len(kinds))
    assert (found.steps, found.failed, found.last_ns) == (len(kinds), failed, NOW + 9 + len(kinds))
    assert found.payloads == payloads
    assert found.records() == [Record(STREAM, 4 + n, 104 + n, payload) for n, payload in enumerate(payloads)]


@pytest.mark.parametrize("form", FORMS)
def test_a_step_that_cannot_be_decoded_is_not_counted(form: Form) -> None:
    (found,) = told_apart([form([step("succeeded", 1), UNDECODABLE, step("failed", 3)])])
    assert isinstance(found, StepBatch)
    assert (found.steps, found.failed, found.last_seq) == (2, 1, 3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_batch_with_something_else_is_cut_into_its_records(form: Form, place: int) -> None:
    payloads = [step("succeeded", 1), step("failed", 2)]
    payloads.insert(place, OTHER)
    assert told_apart([form(payloads)]) == [cut(payloads)]
    assert told_apart([form([OTHER])]) == [cut([OTHER])]
    assert told_apart([Gap(3, 4)]) == [Gap(3, 4)]


@pytest.mark.parametrize("length", [3, len(PLAIN_STEP) - 1, len(PLAIN_STEP), len(PLAIN_STEP) + 7])
def test_what_lies_behind_a_batch_is_no_part_of_its_last_record(length: int) -> None:
    whole = step("succeeded", 1)
    alone = StoredBatch(STREAM, 1, 101, (length,), whole, 0)
    assert told_apart([alone]) == [cut([whole[:length]])]
    with_another = StoredBatch(STREAM, 1, 101, (len(whole), length), whole + whole, 0)
    assert told_apart([with_another]) == [cut([whole, whole[:length]])]


def in_one_frame(items: Sequence[Stored]) -> list[Stored]:
    """The same with all that is stored lying one behind the other."""
    content = b"".join(payload for item in items if isinstance(item, StoredBatch) for payload in item.payloads)
    found: list[Stored] = []
    at = 0
    for item in items:
        if isinstance(item, StoredBatch):
            item = StoredBatch(item.stream, item.first_seq, item.first_lsn, item.lengths, content, at)
            at += sum(item.lengths)
        found.append(item)
    return found


def one_by_one(payloads: Sequence[bytes]) -> tuple[int, int, int]:
    """Steps, failures and the time of the last step, by looking at each record."""
    steps = failed = last_ns = 0
    for payload in payloads:
        if not payload.startswith(PLAIN_STEP):
            continue
        last_ns = plain_step_time_ns(payload)
        try:
            failed += is_failed_step(payload)
        except EpisodeUnavailable:
            continue
        steps += 1
    return steps, failed, last_ns


@pytest.mark.parametrize("seed", range(20))
def test_the_catalog_counts_the_same_however_the_log_is_cut_and_whatever_was_stored_twice(seed: int) -> None:
    dice = random.Random(seed)
    payloads: list[bytes] = []
    for n in range(60):
        kind = dice.choice([*STEPS, *["succeeded"] * 20, "other", "undecodable", *["short"] * (seed % 4 == 3)])
        made = {"other": OTHER, "undecodable": UNDECODABLE, "short": PLAIN_STEP[:3]}.get(kind)
        payloads.append(step(kind, 1_000 + n) if made is None else made)
    payloads.append(step("succeeded", 2_000))
    items: list[Stored] = []
    done = 0
    while done < len(payloads):
        again = dice.choice([0, 0, min(done, dice.randrange(4))])
        size = dice.randrange(1, 9)
        form = dice.choice(FORMS)
        items.append(form(payloads[done - again : done + size], done - again + 1))
        done += size
    if seed % 2:
        items = in_one_frame(items)
    told = told_apart(items)
    assert [item.payloads for item in told if not isinstance(item, Gap)] == [
        item.payloads for item in items if not isinstance(item, Gap)
    ]
    for item in told:
        are_steps = [payload.startswith(PLAIN_STEP) for payload in item.payloads] if not isinstance(item, Gap) else []
        assert isinstance(item, StepBatch) == (False not in are_steps)
    fold = EpisodeCatalogFold()
    start = 0
    while start < len(items):
        many = dice.randrange(1, 6)
        fold.take_batches(told_apart(items[start : start + many]))
        start += many
    touched = fold._touched[STREAM]
    assert (touched.steps, touched.failed, touched.last_step_ns) == one_by_one(payloads)
    assert touched.last_seq == len(payloads)


def test_a_batch_in_which_many_steps_failed_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def count(payloads: Sequence[bytes]) -> tuple[int, int]:
        counted.append(len(payloads))
        return count_steps(payloads)

    monkeypatch.setattr(step_batches, "count_steps", count)
    failing, sound = [step("failed", n) for n in range(5)], [step("succeeded", n) for n in range(3)]
    found = told_apart(in_one_frame([stored(failing), stored(sound, 6), stored(failing, 9)]))
    assert [(it.steps, it.failed) for it in found if isinstance(it, StepBatch)] == [(5, 5), (3, 0), (5, 5)]
    assert counted == [5, 5]
