"""The door for steps: whatever cannot be stored is refused by name, with the path inside the step."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import math
from collections.abc import Callable
from typing import Any

import cbor2
import pytest

from stepwell.errors import InvalidInput, Rejected, TooLarge
from stepwell.model.codec import decode_record, encode_step
from stepwell.model.fold import EpisodeFold
from stepwell.model.limits import MAX_RECORD_BYTES, Limits
from stepwell.model.step import EpisodeStep, ExecutionStep, StepError, StepInterrupted, StepSuccess, StepTimeout

HUGE = 10**5000
"""More digits than Python is willing to print."""
LONE = "\ud800"


def step(**fields: Any) -> ExecutionStep:
    defaults: dict[str, Any] = {"tool": "grep"}
    return ExecutionStep(**(defaults | fields))


def refusal(value: object, limits: Limits | None = None) -> Rejected:
    """What the door says to `value`."""
    with pytest.raises(Rejected) as refused:
        encode_step(value, 1, limits or Limits())  # type: ignore[arg-type]
    return refused.value


def stored(value: ExecutionStep, limits: Limits | None = None) -> EpisodeStep:
    """`value` as it comes back out of the record."""
    fold = EpisodeFold("e")
    fold.add(2, 2, decode_record(encode_step(value, 1, limits or Limits()), "a record"))
    return fold.steps[0]


class Awkward:
    """Has no truth and no repr."""

    def __bool__(self) -> bool:
        raise RuntimeError("ambiguous")

    def __repr__(self) -> str:
        raise RuntimeError("unprintable")


def nested(levels: int) -> Any:
    value: Any = "leaf"
    for _ in range(levels):
        value = [value]
    return value


def containing_itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


@pytest.mark.parametrize("value", [None, "grep", 5, {"tool": "grep"}, EpisodeStep, ("grep",), ExecutionStep])
def test_what_is_no_step_is_refused(value: object) -> None:
    error = refusal(value)
    assert type(error) is InvalidInput
    assert str(error) == f"step: must be an ExecutionStep, not {'NoneType' if value is None else type(value).__name__}"


# ---- wrong types -----------------------------------------------------------------------------------------------------

WRONG_TYPES: list[tuple[dict[str, Any], str]] = [
    ({"tool": None}, "step.tool: must be text, not None"),
    ({"tool": 5}, "step.tool: must be text, not int"),
    ({"tool": b"grep"}, "step.tool: must be text, not bytes"),
    ({"tool": ["grep"]}, "step.tool: must be text, not list"),
    ({"action": None}, "step.action: must be text, not None"),
    ({"action": 1.5}, "step.action: must be text, not float"),
    ({"parameters": None}, "step.parameters: must be a dict with text keys, not None"),
    ({"parameters": []}, "step.parameters: must be a dict with text keys, not list"),
    ({"parameters": [("a", 1)]}, "step.parameters: must be a dict with text keys, not list"),
    ({"parameters": "{}"}, "step.parameters: must be a dict with text keys, not str"),
    ({"parameters": 0}, "step.parameters: must be a dict with text keys, not int"),
    ({"parameters": Awkward()}, "step.parameters: must be a dict with text keys, not Awkward"),
    (
        {"result": "ok"},
        "step.result: must be StepSuccess, StepError, StepTimeout, StepInterrupted or None, not str",
    ),
    (
        {"result": {"status": "success"}},
        "step.result: must be StepSuccess, StepError, StepTimeout, StepInterrupted or None, not dict",
    ),
    (
        {"result": StepSuccess},
        "step.result: must be StepSuccess, StepError, StepTimeout, StepInterrupted or None, not StructMeta",
    ),
    ({"result": StepError(5)}, "step.result.message: must be text, not int"),  # type: ignore[arg-type]
    ({"result": StepTimeout(None)}, "step.result.message: must be text, not None"),  # type: ignore[arg-type]
    ({"result": StepInterrupted(b"")}, "step.result.message: must be text, not bytes"),  # type: ignore[arg-type]
    ({"result": StepSuccess(object())}, "step.result.output: object is not a JSON value"),
    ({"latency_ms": "5"}, "step.latency_ms: must be a number, not str"),
    ({"latency_ms": True}, "step.latency_ms: must be a number, not bool"),
    ({"latency_ms": decimal.Decimal(5)}, "step.latency_ms: must be a number, not Decimal"),
    ({"latency_ms": 5j}, "step.latency_ms: must be a number, not complex"),
    ({"tokens_used": 5.0}, "step.tokens_used: must be a whole number, not float"),
    ({"tokens_used": False}, "step.tokens_used: must be a whole number, not bool"),
    ({"tokens_used": "5"}, "step.tokens_used: must be a whole number, not str"),
    ({"reward": True}, "step.reward: must be a number, not bool"),
    ({"reward": [1]}, "step.reward: must be a number, not list"),
    ({"thought": 5}, "step.thought: must be text, not int"),
    ({"thought": ["hm"]}, "step.thought: must be text, not list"),
    ({"metadata": None}, "step.metadata: must be a dict with text keys, not None"),
    ({"metadata": ()}, "step.metadata: must be a dict with text keys, not tuple"),
    ({"metadata": Awkward()}, "step.metadata: must be a dict with text keys, not Awkward"),
    ({"key": 5}, "step.key: must be text, not int"),
    ({"key": b"k"}, "step.key: must be text, not bytes"),
    ({"step_number": 1.0}, "step.step_number: must be a whole number, not float"),
    ({"step_number": True}, "step.step_number: must be a whole number, not bool"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG_TYPES, ids=[message for _, message in WRONG_TYPES])
def test_a_field_of_a_wrong_type_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    error = refusal(step(**fields))
    assert type(error) is InvalidInput
    assert isinstance(error, ValueError)
    assert str(error) == message


@pytest.mark.parametrize("field", ["tool", "key"])
@pytest.mark.parametrize("blank", ["", " ", "\n\t ", "\u2003\u00a0"])
def test_a_tool_or_a_key_must_not_be_blank(field: str, blank: str) -> None:
    error = refusal(step(**{field: blank}))
    assert type(error) is InvalidInput
    assert str(error) == f"step.{field}: must not be empty"


NUMBERS: list[tuple[str, Any, str]] = [
    ("latency_ms", -0.001, "-0.001 is below 0"),
    ("latency_ms", -5, "-5 is below 0"),
    ("tokens_used", -1, "-1 is below 0"),
    ("step_number", -1, "-1 is below 0"),
    ("latency_ms", math.nan, "nan is not a number that can be stored"),
    ("latency_ms", math.inf, "inf is not a number that can be stored"),
    ("reward", math.nan, "nan is not a number that can be stored"),
    ("reward", -math.inf, "-inf is not a number that can be stored"),
    ("tokens_used", 2**63, "9223372036854775808 does not fit in 64 bits; pass a smaller number"),
    ("reward", -(2**63), "-9223372036854775808 does not fit in 64 bits; pass a smaller number"),
    ("latency_ms", HUGE, "<int> does not fit in 64 bits; pass a smaller number"),
    ("tokens_used", HUGE, "<int> does not fit in 64 bits; pass a smaller number"),
    ("reward", -HUGE, "<int> does not fit in 64 bits; pass a smaller number"),
    ("step_number", HUGE, "<int> does not fit in 64 bits; pass a smaller number"),
]


@pytest.mark.parametrize(("field", "value", "message"), NUMBERS, ids=[f"{f} {m}" for f, _, m in NUMBERS])
def test_a_number_that_cannot_be_kept_is_refused(field: str, value: Any, message: str) -> None:
    error = refusal(step(**{field: value}))
    assert type(error) is InvalidInput
    assert str(error) == f"step.{field}: {message}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latency_ms", 0),
        ("latency_ms", 0.0),
        ("latency_ms", 2**63 - 1),
        ("reward", -(2**63) + 1),
        ("reward", -1.7976931348623157e308),
        ("tokens_used", 0),
        ("tokens_used", 2**63 - 1),
        ("step_number", 0),
    ],
)
def test_numbers_at_the_edge_are_kept_with_their_type(field: str, value: float) -> None:
    kept = getattr(stored(step(**{field: value})), field)
    assert kept == value
    assert type(kept) is type(value)


# ---- JSON values inside parameters, metadata and output --------------------------------------------------------------

INSIDE: dict[str, Callable[[Any], dict[str, Any]]] = {
    "step.parameters.v": lambda value: {"parameters": {"v": value}},
    "step.metadata.v": lambda value: {"metadata": {"v": value}},
    "step.result.output.v": lambda value: {"result": StepSuccess({"v": value})},
    "step.result.output[1]": lambda value: {"result": StepSuccess(["ok", value])},
}

UNSTORABLE: list[tuple[Any, str]] = [
    (math.nan, ": nan is not a JSON number; use null or text"),
    (math.inf, ": inf is not a JSON number; use null or text"),
    ([1, {"deep": [-math.inf]}], "[1].deep[0]: -inf is not a JSON number; use null or text"),
    (b"raw", ": bytes are not JSON; encode them as text (base64) or store them elsewhere"),
    ({"a": [bytearray(b"raw")]}, ".a[0]: bytes are not JSON; encode them as text (base64) or store them elsewhere"),
    ((memoryview(b""),), "[0]: bytes are not JSON; encode them as text (base64) or store them elsewhere"),
    ({1: "x"}, ": the key 1 is int; keys must be text"),
    ({"a": {None: 1}}, ".a: the key None is None; keys must be text"),
    ({"a": {True: 1}}, ".a: the key True is bool; keys must be text"),
    ({"a": [{("t",): 1}]}, ".a[0]: the key ('t',) is tuple; keys must be text"),
    ({b"a": 1}, ": the key b'a' is bytes; keys must be text"),
    ({HUGE: 1}, ": the key <int> is int; keys must be text"),
    ({("x" * 500,): 1}, f": the key ('{'x' * 78}… is tuple; keys must be text"),
    ([{1, 2}], "[0]: set is not a JSON value"),
    (dt.datetime(2024, 1, 1, tzinfo=dt.UTC), ": datetime is not a JSON value"),
    (decimal.Decimal("1.5"), ": Decimal is not a JSON value"),
    ({"f": print}, ".f: builtin_function_or_method is not a JSON value"),
    (collections.UserDict(a=1), ": UserDict is not a JSON value"),
    (range(3), ": range is not a JSON value"),
    (Awkward(), ": Awkward is not a JSON value"),
    (1 << (64 * 1024), ": an integer of 65537 bits; pass it as text"),
    ([-(1 << (64 * 1024))], "[0]: an integer of 65537 bits; pass it as text"),
    (LONE, ": surrogates not allowed at character 0; only valid Unicode can be stored, replace it"),
    (
        ["a", {"b": f"ab{LONE}c"}],
        "[1].b: surrogates not allowed at character 2; only valid Unicode can be stored, replace it",
    ),
    (
        {"a": {f"k{LONE}": 1}},
        ".a (a key): surrogates not allowed at character 1; only valid Unicode can be stored, replace it",
    ),
    (
        {"a": {"\udfff": {}}},
        ".a (a key): surrogates not allowed at character 0; only valid Unicode can be stored, replace it",
    ),
]


@pytest.mark.parametrize("place", INSIDE)
@pytest.mark.parametrize(("value", "message"), UNSTORABLE, ids=[ascii(message[:60]) for _, message in UNSTORABLE])
def test_a_value_that_is_not_json_is_refused_with_the_path_to_it(place: str, value: Any, message: str) -> None:
    error = refusal(step(**INSIDE[place](value)))
    assert type(error) is InvalidInput
    assert str(error) == place + message


@pytest.mark.parametrize(("value", "message"), UNSTORABLE, ids=[ascii(message[:60]) for _, message in UNSTORABLE])
def test_an_output_that_is_not_json_itself_is_refused(value: Any, message: str) -> None:
    assert str(refusal(step(result=StepSuccess(value)))) == "step.result.output" + message


@pytest.mark.parametrize("field", ["tool", "action", "thought", "key"])
def test_a_lone_surrogate_in_a_text_field_is_refused(field: str) -> None:
    error = refusal(step(**{field: f"ok{LONE}"}))
    assert type(error) is InvalidInput
    assert str(error).startswith(f"step.{field}: surrogates not allowed at character 2;")


@pytest.mark.parametrize("kind", [StepError, StepTimeout, StepInterrupted])
def test_a_lone_surrogate_in_a_message_is_refused(kind: type[StepError]) -> None:
    assert str(refusal(step(result=kind(LONE)))).startswith(
        "step.result.message: surrogates not allowed at character 0;"
    )


def test_thirty_two_levels_are_kept_and_one_more_is_refused() -> None:
    fits = {"v": nested(31)}
    assert stored(step(parameters=fits)).parameters == fits
    error = refusal(step(parameters={"v": nested(32)}))
    assert type(error) is InvalidInput
    assert str(error) == f"step.parameters.v{'[0]' * 31}: nested deeper than 32 levels (or it contains itself)"
    assert stored(step(result=StepSuccess(nested(32)))).result == StepSuccess(nested(32))
    assert str(refusal(step(result=StepSuccess(nested(33))))).startswith(f"step.result.output{'[0]' * 32}: nested")


def test_a_very_deep_value_is_refused_without_a_recursion_error() -> None:
    assert "nested deeper than 32 levels" in str(refusal(step(metadata={"v": nested(900)})))


def test_a_value_that_contains_itself_is_refused() -> None:
    error = refusal(step(parameters=containing_itself()))
    assert type(error) is InvalidInput
    assert str(error) == f"step.parameters{'.self' * 32}: nested deeper than 32 levels (or it contains itself)"
    looped: list[Any] = ["a"]
    looped.append(looped)
    assert "or it contains itself" in str(refusal(step(result=StepSuccess(looped))))


def test_a_value_that_stands_in_two_places_is_no_cycle() -> None:
    shared = ["shared"]
    assert stored(step(parameters={"a": shared, "b": [shared, shared]})).parameters == {
        "a": ["shared"],
        "b": [["shared"], ["shared"]],
    }


# ---- subclasses of the plain types -----------------------------------------------------------------------------------


class Text(str):
    __slots__ = ()


class Number(float):
    __slots__ = ()


class Level(enum.IntEnum):
    HIGH = 3


class Name(enum.StrEnum):
    GREP = "grep"


Point = collections.namedtuple("Point", "x y")


def test_subclasses_of_plain_types_are_kept_as_what_they_stand_for() -> None:
    given = {
        "text": Text("t"),
        "number": Number(0.5),
        "enums": [Level.HIGH, Name.GREP],
        "point": Point(1, 2),
        "ordered": collections.OrderedDict(b=1, a=2),
        "default": collections.defaultdict(list, k=[1]),
        Text("key"): None,
    }
    kept = stored(
        step(tool=Name.GREP, action=Text("look"), parameters=given, latency_ms=Number(1.5), tokens_used=Level.HIGH)
    )
    assert kept.parameters == {
        "text": "t",
        "number": 0.5,
        "enums": [3, "grep"],
        "point": [1, 2],
        "ordered": {"b": 1, "a": 2},
        "default": {"k": [1]},
        "key": None,
    }
    assert type(kept.parameters["text"]) is str
    assert type(kept.parameters["number"]) is float
    assert [type(item) for item in kept.parameters["enums"]] == [int, str]
    assert (kept.tool, kept.action, kept.latency_ms, kept.tokens_used) == ("grep", "look", 1.5, 3)


# ---- sizes -----------------------------------------------------------------------------------------------------------

SMALL = Limits(text_bytes=100, record_bytes=1000)
TEXTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "step.tool": lambda text: {"tool": text},
    "step.action": lambda text: {"action": text},
    "step.thought": lambda text: {"thought": text},
    "step.result.output": lambda text: {"result": StepSuccess(text)},
    "step.result.message": lambda text: {"result": StepError(text)},
}


@pytest.mark.parametrize("place", TEXTS)
@pytest.mark.parametrize("character", ["x", "é", "漢", "🪜"], ids=["1 byte", "2 bytes", "3 bytes", "4 bytes"])
def test_a_text_may_have_its_limit_in_bytes_of_utf8_and_no_more(place: str, character: str) -> None:
    width = len(character.encode())
    fits = character * (100 // width) + "x" * (100 % width)
    stored(step(**TEXTS[place](fits)), SMALL)
    error = refusal(step(**TEXTS[place](fits + "x")), SMALL)
    assert type(error) is TooLarge
    assert str(error) == f"{place}: 101 bytes exceed the limit of 100 (MemoryConfig.limits)"
    stored(step(**TEXTS[place](Text(fits))), SMALL)
    assert type(refusal(step(**TEXTS[place](Text(fits + "x"))), SMALL)) is TooLarge


def test_an_over_long_text_with_a_lone_surrogate_is_too_large_first() -> None:
    assert type(refusal(step(action=LONE * 34), SMALL)) is TooLarge


def test_a_key_may_have_200_bytes() -> None:
    assert stored(step(key="é" * 100)).key == "é" * 100
    error = refusal(step(key="é" * 100 + "x"))
    assert type(error) is TooLarge
    assert str(error).startswith("step.key: 201 bytes exceed the limit of 200")


def test_texts_inside_parameters_are_bounded_by_the_record_only() -> None:
    assert stored(step(parameters={"v": "x" * 500}), SMALL).parameters == {"v": "x" * 500}


def test_a_record_may_have_its_limit_in_bytes_and_no_more() -> None:
    def sized(size: int) -> ExecutionStep:
        return step(parameters={"v": "x" * size})

    fits = 500 + 1000 - len(encode_step(sized(500), 1, SMALL))
    assert len(encode_step(sized(fits), 1, SMALL)) == 1000
    error = refusal(sized(fits + 1), SMALL)
    assert type(error) is TooLarge
    assert str(error) == "step: 1,001 bytes encoded exceed the limit of 1,000 a record may have"


def test_the_reference_limits_refuse_an_observation_of_more_than_10_000_bytes() -> None:
    limits = Limits.reference()
    stored(step(result=StepSuccess("x" * 10_000)), limits)
    assert type(refusal(step(result=StepSuccess("x" * 10_001)), limits)) is TooLarge


def test_a_value_with_shared_parts_that_unfold_without_end_is_too_large() -> None:
    shared: list[object] = [1]
    for _ in range(30):
        shared = [shared, shared]
    with pytest.raises(TooLarge, match="items"):
        encode_step(ExecutionStep("tool", parameters={"x": shared}), 1, Limits())


def test_a_record_the_log_could_not_take_is_too_large_at_the_door() -> None:
    """The log adds to a record what it needs to find it again; the door leaves room for that."""
    fits = ExecutionStep("tool", parameters={"x": "x" * (MAX_RECORD_BYTES - 60)})
    assert len(encode_step(fits, 1, Limits())) <= MAX_RECORD_BYTES
    with pytest.raises(TooLarge, match="record"):
        encode_step(ExecutionStep("tool", parameters={"x": "x" * MAX_RECORD_BYTES}), 1, Limits())


def test_the_envelope_put_together_by_hand_is_what_cbor_makes_of_it() -> None:
    now = 1_800_000_000_000_000_000
    step = ExecutionStep("tool", "act", {"a": [1, {"b": None}]}, StepSuccess("fine"), 5)
    expected = cbor2.dumps([1, "step", now, ["tool", "act", {"a": [1, {"b": None}]}, [0, "fine"], 5], None])
    assert encode_step(step, now, Limits()) == expected
