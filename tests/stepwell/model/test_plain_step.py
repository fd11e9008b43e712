"""The fast lane: what it takes, what it leaves to the checks one by one, and that it remembers names within a bound."""

from __future__ import annotations

import cbor2
import pytest

from stepwell.errors import InvalidInput
from stepwell.model import plain_step
from stepwell.model.codec import decode_record, encode_step
from stepwell.model.limits import Limits
from stepwell.model.plain_step import SHORT_TEXT_BYTES, encode_plain_step
from stepwell.model.step import ExecutionStep, StepError, StepSuccess


class Text(str):
    """Text of a type of its own."""


ORDINARY = ExecutionStep("tool", "action", {"path": "a", "line": 1, "ratio": 0.5}, StepSuccess("fine"), 5)


def test_an_ordinary_step_takes_the_fast_lane() -> None:
    assert encode_plain_step(ORDINARY, 2**60, SHORT_TEXT_BYTES) == encode_step(ORDINARY, 2**60, Limits())


@pytest.mark.parametrize(
    "step",
    [
        ExecutionStep(Text("tool"), result=StepSuccess("fine")),
        ExecutionStep("tool", Text("action"), result=StepSuccess("fine")),
        ExecutionStep("tool", parameters={Text("name"): "value"}, result=StepSuccess("fine")),
        ExecutionStep("tool" * 100, result=StepSuccess("fine")),
        ExecutionStep("tool", result=StepError("no")),
        ExecutionStep("tool"),
        ExecutionStep("tool", result=StepSuccess("fine"), key="key"),
        ExecutionStep("tool", result=StepSuccess("fine"), metadata={"a": 1}),
        ExecutionStep("tool", result=StepSuccess("x" * SHORT_TEXT_BYTES)),
    ],
)
def test_what_is_not_ordinary_is_left_to_the_checks_one_by_one(step: ExecutionStep) -> None:
    assert encode_plain_step(step, 2**60, SHORT_TEXT_BYTES) is None
    decoded = decode_record(encode_step(step, 2**60, Limits()), "a record")
    assert decoded.data[:3] == [step.tool, step.action, step.parameters]


NUMBERS = [0, 23, 24, 255, 256, 1023, 1024, 1025, 0xABCD, 65_535, 65_536, 65_537, 2**63]


@pytest.mark.parametrize("value", [-1, *NUMBERS, True, False, None, 0.5, "", "é" * 255])
def test_every_value_of_a_parameter_is_what_cbor_makes_of_it(value: object) -> None:
    step = ExecutionStep("tool", "action", {"before": 1, "value": value, "after": "x"}, StepSuccess(value), 0.5)
    expected = ["tool", "action", {"before": 1, "value": value, "after": "x"}, [0, value], 0.5]
    encoded = encode_plain_step(step, 2**60, SHORT_TEXT_BYTES)
    assert encoded == cbor2.dumps([1, "step", 2**60, expected, None])


@pytest.mark.parametrize("latency_ms", [*NUMBERS[:-1], 0.5, 1024.0, None])
def test_every_latency_is_what_cbor_makes_of_it(latency_ms: float | None) -> None:
    step = ExecutionStep("tool", "action", {}, StepSuccess("fine"), latency_ms)
    expected: list[object] = ["tool", "action", {}, [0, "fine"], latency_ms]
    encoded = encode_plain_step(step, 2**60, SHORT_TEXT_BYTES)
    assert encoded == cbor2.dumps([1, "step", 2**60, expected, None])


def test_a_blank_text_names_a_parameter_and_no_tool() -> None:
    step = ExecutionStep("tool", parameters={" ": 1, "": 2}, result=StepSuccess("fine"))
    assert decode_record(encode_step(step, 2**60, Limits()), "a record").data[2] == {" ": 1, "": 2}
    for blank in (" ", ""):
        with pytest.raises(InvalidInput, match=r"step\.tool"):
            encode_step(ExecutionStep(blank, result=StepSuccess("fine")), 2**60, Limits())


def test_names_without_end_do_not_fill_memory() -> None:
    for number in range(3_000):
        step = ExecutionStep(f"tool {number}", parameters={f"name {number}": number}, result=StepSuccess("fine"))
        record = cbor2.loads(encode_step(step, 2**60, Limits()))
        assert record[3][0] == f"tool {number}"
        assert record[3][2] == {f"name {number}": number}
    assert len(plain_step._TOOLS) <= 1_000
    assert len(plain_step._PARAMETERS) <= 1_000
