"""What goes through the door comes back: every field of any step, equal and of the same type."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepwell.model.codec import decode_record, encode_step, step_data
from stepwell.model.fold import EpisodeFold
from stepwell.model.limits import Limits
from stepwell.model.step import (
    EpisodeStep,
    ExecutionStep,
    StepError,
    StepInterrupted,
    StepResult,
    StepSuccess,
    StepTimeout,
)

steady = settings(derandomize=True, database=None, deadline=None, max_examples=120)

_AWKWARD = "\0\x1b\n\ufeff\u202e\u200d\u0301\ufffe\uffff🪜👩🏽\U0010ffff\ue000aé漢"
_texts = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.text(_AWKWARD, max_size=20))
_filled = _texts.filter(lambda text: bool(text.strip()))
_integers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.sampled_from(
        [0, -1, 23, 24, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**300, -(10**300)]
    ),
)
_floats = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, -0.0, 1.0, 2.0**53, 5e-324, 0.1, 1e16])
)
_scalars = st.one_of(st.none(), st.booleans(), _integers, _floats, _texts)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(inner, max_size=3).map(tuple), st.dictionaries(_texts, inner, max_size=4)
    ),
    max_leaves=12,
)
_objects = st.dictionaries(_texts, _values, max_size=4)
_results: st.SearchStrategy[StepResult | None] = st.one_of(
    st.none(),
    st.builds(StepSuccess, _values),
    st.builds(StepError, _texts),
    st.builds(StepTimeout, _texts),
    st.builds(StepInterrupted, _texts),
)
_amounts = st.one_of(st.none(), st.integers(0, 2**63 - 1), st.floats(0, allow_nan=False, allow_infinity=False))
_rewards = st.one_of(st.none(), st.integers(1 - 2**63, 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))
_counts = st.none() | st.integers(0, 2**63 - 1)
steps = st.builds(
    ExecutionStep,
    tool=_filled,
    action=_texts,
    parameters=_objects,
    result=_results,
    latency_ms=_amounts,
    tokens_used=_counts,
    reward=_rewards,
    thought=st.none() | _texts,
    metadata=_objects,
    key=st.none() | _filled.filter(lambda text: len(text.encode()) <= 200),
    step_number=_counts,
)


def listed(value: Any) -> Any:
    """`value` with every tuple as the list it is in JSON."""
    if isinstance(value, dict):
        return {key: listed(item) for key, item in value.items()}
    return [listed(item) for item in value] if isinstance(value, list | tuple) else value


def exact(value: object) -> str:
    """A text that differs wherever two values differ, in type, sign of zero or order as well."""
    return repr(value)


def fold_of(*payloads: bytes) -> list[EpisodeStep]:
    """The steps an episode has whose records behind the start are these."""
    fold = EpisodeFold("e")
    for seq, payload in enumerate(payloads, 2):
        fold.add(seq, seq, decode_record(payload, "a record"))
    return fold.steps


def plainly_encoded(step: ExecutionStep, time_ns: int) -> bytes:
    """The record of `step` by nothing but cbor2."""
    coded = None
    if isinstance(step.result, StepSuccess):
        coded = (0, step.result.output)
    elif step.result is not None:
        coded = ((StepError, StepTimeout, StepInterrupted).index(type(step.result)) + 1, step.result.message)
    data = [step.tool, step.action, step.parameters, coded, step.latency_ms]
    rest = [step.tokens_used, step.reward, step.thought, step.metadata or None, step.step_number]
    if any(value is not None for value in rest):
        data += rest
    return cbor2.dumps([1, "step", time_ns, data, None if step.key is None else {"key": step.key}])


_around_short = st.integers(250, 260).flatmap(lambda size: st.sampled_from("xé✓🜁").map(lambda char: char * size))
_some_texts = _texts | _around_short
_some_numbers = st.sampled_from([0, 23, 24, 255, 256, 1023, 1024, 2**32, -1, True])
_plain_objects = st.dictionaries(_some_texts, st.one_of(_values, _some_texts, _some_numbers), max_size=30)


@steady
@given(
    step=steps
    | st.builds(
        ExecutionStep,
        tool=_filled | _around_short,
        action=_some_texts,
        parameters=_plain_objects,
        result=st.builds(StepSuccess, _values | _some_texts) | _results,
        latency_ms=_amounts | _some_numbers.filter(lambda value: value is not True and value >= 0),
    ),
    time_ns=st.integers(2**32, 2**62),
)
def test_the_bytes_of_a_step_are_those_that_cbor_makes_of_it(step: ExecutionStep, time_ns: int) -> None:
    assert encode_step(step, time_ns, Limits()) == plainly_encoded(step, time_ns)


@steady
@given(step=steps, time_ns=st.integers(0, 2**62))
@example(step=ExecutionStep("t"), time_ns=0)
@example(step=ExecutionStep("\0", "", {"": ()}, StepSuccess(()), 0, 0, 0, "", {"": ""}, "\0", 0), time_ns=1)
@example(step=ExecutionStep("t", result=StepSuccess(None), latency_ms=1, reward=1.0), time_ns=1)
def test_any_step_comes_back_with_every_field_equal(step: ExecutionStep, time_ns: int) -> None:
    payload = encode_step(step, time_ns, Limits())
    (kept,) = fold_of(payload)
    result = StepSuccess(listed(step.result.output)) if isinstance(step.result, StepSuccess) else step.result
    expected = EpisodeStep(
        seq=2,
        step_number=1 if step.step_number is None else step.step_number,
        timestamp=dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=time_ns // 1000),
        time_ns=time_ns,
        tool=step.tool,
        action=step.action,
        parameters=listed(step.parameters),
        result=result,
        latency_ms=step.latency_ms,
        tokens_used=step.tokens_used,
        reward=step.reward,
        thought=step.thought,
        metadata=listed(step.metadata),
        key=step.key,
    )
    assert kept == expected
    assert exact(kept) == exact(expected)
    check_event(step, payload)
    check_plain_cbor(step, payload)


def check_event(step: ExecutionStep, payload: bytes) -> None:
    """The event of the step shows the same as a JSON object."""
    shown: dict[str, Any] | None
    match step.result:
        case None:
            shown = None
        case StepSuccess(output):
            shown = {"status": "success", "output": listed(output)}
        case StepError(message):
            shown = {"status": "error", "message": message}
        case StepTimeout(message):
            shown = {"status": "timeout", "message": message}
        case StepInterrupted(message):
            shown = {"status": "interrupted", "message": message}
    fields = ("tool", "action", "latency_ms", "tokens_used", "reward", "thought", "step_number")
    expected = {name: getattr(step, name) for name in fields} | {
        "parameters": listed(step.parameters),
        "result": shown,
        "metadata": listed(step.metadata),
    }
    data = step_data(decode_record(payload, "a record").data)
    assert exact(sorted(data.items())) == exact(sorted(expected.items()))


def check_plain_cbor(step: ExecutionStep, payload: bytes) -> None:
    """The record is one item of plain CBOR that any reader takes."""
    version, kind, _time_ns, data, meta = cbor2.loads(payload)
    assert (version, kind) == (1, "step")
    assert len(data) in (5, 10)
    assert data[:2] == [step.tool, step.action]
    assert meta == (None if step.key is None else {"key": step.key})


def test_a_megabyte_of_text_comes_back_whole() -> None:
    text = ("0123456789abcde\0" * 65536)[: 1024 * 1024]
    astral = "🪜" * (256 * 1024)
    assert len(text.encode()) == len(astral.encode()) == 1024 * 1024
    payload = encode_step(ExecutionStep("t", action=astral, result=StepSuccess(text), thought=text), 1, Limits())
    (kept,) = fold_of(payload)
    assert kept.action == astral
    assert kept.result == StepSuccess(text)
    assert kept.thought == text


@pytest.mark.parametrize(
    "value",
    [2**63, -(2**63) - 1, 2**64 - 1, 2**64, 10**1000, -(10**1000), 2 ** (64 * 1024) - 1],
    ids=lambda value: f"{value.bit_length()} bits",
)
def test_integers_of_any_size_are_kept_exactly(value: int) -> None:
    (kept,) = fold_of(encode_step(ExecutionStep("t", parameters={"v": value}), 1, Limits()))
    assert kept.parameters == {"v": value}
    assert type(kept.parameters["v"]) is int


def test_whole_floats_and_integers_are_kept_apart() -> None:
    given = {"v": [1, 1.0, True, 0, 0.0, -0.0, False, 2**60, float(2**60)]}
    (kept,) = fold_of(encode_step(ExecutionStep("t", parameters=given, latency_ms=5.0, reward=1), 1, Limits()))
    assert exact(kept.parameters) == exact(given)
    assert math.copysign(1, kept.parameters["v"][5]) == -1
    assert (type(kept.latency_ms), type(kept.reward)) == (float, int)


def test_keys_keep_their_order_and_case() -> None:
    given = dict.fromkeys(["b", "a", "B", "", "é", "e\u0301", "0", " b"])
    (kept,) = fold_of(encode_step(ExecutionStep("t", parameters=given), 1, Limits()))
    assert list(kept.parameters) == list(given)


def test_steps_without_a_number_are_counted_and_others_keep_their_own() -> None:
    numbers = [None, None, 7, 0, None]
    kept = fold_of(*(encode_step(ExecutionStep("t", step_number=number), 1, Limits()) for number in numbers))
    assert [step.step_number for step in kept] == [1, 2, 7, 0, 5]
    assert [step.seq for step in kept] == [2, 3, 4, 5, 6]


def test_a_time_is_utc_to_the_microsecond_and_kept_to_the_nanosecond() -> None:
    (kept,) = fold_of(encode_step(ExecutionStep("t"), 1_709_210_096_123_456_789, Limits()))
    assert kept.time_ns == 1_709_210_096_123_456_789
    assert kept.timestamp == dt.datetime(2024, 2, 29, 12, 34, 56, 123456, tzinfo=dt.UTC)
    assert kept.timestamp.tzinfo is dt.UTC


def test_a_plain_step_costs_few_bytes_beyond_its_texts() -> None:
    step = ExecutionStep("file_reader", "Read config.toml", {"path": "config.toml"}, StepSuccess("1024 bytes"), 5)
    texts = "file_readerRead config.tomlpathconfig.toml1024 bytesstep"
    assert len(encode_step(step, 1_700_000_000_000_000_000, Limits())) <= len(texts) + 25
