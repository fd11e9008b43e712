"""Bytes that no door of ours has written: only ever `EpisodeUnavailable(reason="undecodable")`, never anything else."""

from __future__ import annotations

import math
import struct
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.errors import EpisodeUnavailable, Unavailable
from stepwell.model.codec import decode_record, decode_records, encode_step, step_data
from stepwell.model.event import STEP, utc
from stepwell.model.fold import EpisodeFold
from stepwell.model.limits import Limits
from stepwell.model.start import checked_start, encode_start
from stepwell.model.step import ExecutionStep, StepSuccess

steady = settings(derandomize=True, database=None, deadline=None, max_examples=300)

ROW: list[Any] = ["grep", "look", {"a": 1}, [0, "found"], 5]
FULL: list[Any] = [*ROW, 7, 0.5, "hm", {"b": 2}, 3]
START = encode_start(
    checked_start(
        "Fix it",
        context=None,
        context_fields={},
        task_type="other",
        agent="",
        parent=None,
        thread=None,
        metadata={"n": 1},
        limits=Limits(),
    ),
    "e",
    1,
    Limits(),
)
SOUND = encode_step(
    ExecutionStep("grep", "look", {"a": [1, {"b": "🪜"}]}, StepSuccess("x" * 30), 5.5, key="k", thought="hm"),
    1_700_000_000_000_000_000,
    Limits(),
)


def record(
    data: object = None, *, version: object = 1, kind: object = "step", time_ns: object = 1, meta: object = None
) -> bytes:
    """A record of our form with anything in it."""
    return cbor2.dumps([version, kind, time_ns, ROW if data is None else data, meta])


def read(payload: bytes) -> EpisodeFold:
    """All that reading one record of an episode does."""
    fold = EpisodeFold("e")
    decoded = decode_record(payload, "record 2 of episode 'e'")
    fold.add(2, 2, decoded)
    if decoded.kind == STEP:
        step_data(decoded.data)
    else:
        assert type(decoded.data) is dict
    if decoded.meta is not None and "key" in decoded.meta:
        hash(decoded.meta["key"])
    utc(decoded.time_ns)
    return fold


def refusal(payload: bytes) -> EpisodeUnavailable:
    with pytest.raises(EpisodeUnavailable) as refused:
        read(payload)
    assert type(refused.value) is EpisodeUnavailable
    assert isinstance(refused.value, Unavailable)
    assert refused.value.reason == "undecodable"
    assert str(refused.value).startswith("record 2 of episode 'e' ")
    return refused.value


def read_or_refuse(payload: bytes) -> None:
    """Reading must give a fold or that one error."""
    try:
        read(payload)
    except EpisodeUnavailable as error:
        assert error.reason == "undecodable"


def test_the_records_that_are_spoiled_below_are_sound() -> None:
    assert read(SOUND).steps[0].tool == "grep"
    assert read(record()).steps[0].result == StepSuccess("found")
    assert read(record(FULL)).steps[0].step_number == 3
    start = read(START).start
    assert start is not None
    assert start.metadata == {"n": 1}


# ---- any bytes -------------------------------------------------------------------------------------------------------


@steady
@given(st.binary(max_size=200))
def test_any_bytes(payload: bytes) -> None:
    read_or_refuse(payload)


@steady
@given(at=st.integers(0, len(SOUND) - 1), byte=st.integers(0, 255), extra=st.binary(max_size=3))
def test_a_sound_record_with_one_byte_changed(at: int, byte: int, extra: bytes) -> None:
    read_or_refuse(SOUND[:at] + bytes([byte]) + SOUND[at + 1 :])
    read_or_refuse(SOUND[:at] + extra + SOUND[at:])


@steady
@given(at=st.integers(0, len(START) - 1), byte=st.integers(0, 255))
def test_a_sound_start_with_one_byte_changed(at: int, byte: int) -> None:
    read_or_refuse(START[:at] + bytes([byte]) + START[at + 1 :])


_anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=5),
        st.builds(pow, st.just(10), st.just(5000)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=12),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers(), st.none()), inner, max_size=4),
        st.tuples(st.sampled_from([0, 1, 2, 3, 28, 29, 30, 35, 37, 258, 999]), inner).map(
            lambda pair: cbor2.CBORTag(*pair)
        ),
    ),
    max_leaves=15,
)


@settings(steady, max_examples=100)
@given(
    version=st.sampled_from([1, 1, 1, 0, -1]) | _anything,
    kind=st.sampled_from(["step", "started", "ended", "other"]) | _anything,
    time_ns=st.just(1) | _anything,
    data=_anything | st.lists(_anything, min_size=5, max_size=10),
    meta=st.none() | _anything | st.dictionaries(st.sampled_from(["key", "id", "stream"]), _anything),
)
def test_any_value_in_any_place(version: Any, kind: Any, time_ns: Any, data: Any, meta: Any) -> None:
    read_or_refuse(record(data, version=version, kind=kind, time_ns=time_ns, meta=meta))


@settings(steady, max_examples=100)
@given(place=st.integers(0, 9), value=_anything)
def test_any_value_in_any_field_of_a_step(place: int, value: Any) -> None:
    read_or_refuse(record([*FULL[:place], value, *FULL[place + 1 :]]))


# ---- each way of being no record -------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", range(len(SOUND)))
def test_a_record_that_is_cut_short_is_refused(length: int) -> None:
    refusal(SOUND[:length])


@pytest.mark.parametrize("extra", [b"\0", b"\xf6", SOUND, b"\xff"])
def test_bytes_behind_the_record_are_refused(extra: bytes) -> None:
    assert "bytes follow the record" in str(refusal(SOUND + extra))


@pytest.mark.parametrize(
    ("definite", "indefinite"),
    [
        (record()[:1], b"\x9f"),
        (b"\x85dgrep", b"\x9fdgrep"),
        (b"\xa1aa\x01", b"\xbfaa\x01\xff"),
        (b"dlook", b"\x7fdlook\xff"),
        (b"dlook", b"\x5fDlook\xff"),
    ],
    ids=["the record", "the step", "a map", "a text", "bytes"],
)
def test_indefinite_lengths_are_refused(definite: bytes, indefinite: bytes) -> None:
    sound = record()
    assert definite in sound
    assert "indefinite" in str(refusal(sound.replace(definite, indefinite, 1)))


@pytest.mark.parametrize(
    "spoiled",
    [
        record(["grep", "look", {}, None, None]).replace(b"\xa0", b"\xa2aa\x01aa\x02"),
        record(meta={"key": "k"}).replace(b"\xa1ckeyak", b"\xa2ckeyakckeyak"),
        record(["grep", "look", {}, [0, {}], None]).replace(b"\x82\x00\xa0", b"\x82\x00\xa2aa\xf6aa\xf6"),
    ],
    ids=["parameters", "meta", "output"],
)
def test_duplicate_keys_are_refused(spoiled: bytes) -> None:
    assert "duplicate" in str(refusal(spoiled)).lower()


TAGS = [0, 1, 4, 5, 25, 28, 29, 30, 32, 35, 36, 37, 52, 54, 63, 64, 100, 255, 256, 258, 260, 261, 1004, 43000, 55799]


@pytest.mark.parametrize("tag", [*TAGS, 65, 999, 65536, 2**32, 2**64 - 1])
def test_a_tag_other_than_a_bignum_is_refused_and_nothing_is_made_of_it(tag: int) -> None:
    for content in ("a text", 1, [1, 2], {"a": 1}, b"bytes"):
        error = refusal(record(["grep", "look", {}, [0, cbor2.CBORTag(tag, content)], None]))
        assert error.__cause__ is not None
        assert str(error.__cause__.__cause__) == "a CBOR tag that no record of ours holds"
    refusal(cbor2.dumps(cbor2.CBORTag(tag, [1, "step", 1, ROW, None])))


def test_a_regular_expression_that_never_ends_is_not_even_compiled() -> None:
    refusal(record(["grep", "look", {}, [0, cbor2.CBORTag(35, "(a+)+" * 1000 + "(" * 500)], None]))


def test_bignums_are_taken_where_an_integer_may_be() -> None:
    kept = read(record(["grep", "look", {"v": 2**200}, [0, -(2**200)], None])).steps[0]
    assert (kept.parameters, kept.result) == ({"v": 2**200}, StepSuccess(-(2**200)))


@pytest.mark.parametrize("content", ["text", 5, [1], None])
def test_a_bignum_that_is_no_byte_string_is_refused(content: object) -> None:
    refusal(record(["grep", "look", {"v": cbor2.CBORTag(2, content)}, None, None]))


@pytest.mark.parametrize("opening", [b"\x81", b"\xa1aa", b"\xa1", b"\xc2", b"\xd8\x20", b"\x82\xf6"])
def test_deep_nesting_is_refused_without_a_recursion_error(opening: bytes) -> None:
    refusal(opening * 50_000)
    head = record(["grep", "look", {}, [0, 7777], None])
    refusal(head.replace(b"\x19\x1e\x61", opening * 50_000 + b"\x01"))


@pytest.mark.parametrize(
    "payload",
    [
        head + length
        for head in (b"\x5b", b"\x7b", b"\x9b", b"\xbb", b"\xc2\x5b", b"\x85\x01\x7b", b"\x85\x01dstep\x01\x9b")
        for length in (b"\xff" * 8, b"\x7f" + b"\xff" * 7, struct.pack(">Q", 2**40))
    ],
)
def test_a_length_beyond_all_memory_is_refused_without_asking_for_it(payload: bytes) -> None:
    refusal(payload)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff", b"\x1c", b"\xfc", b"\xf8\x18", b"\x62\xff\xff", b"\x63\xed\xa0\x80", b"\x9f", b"\xbf\xff", b"\xf7"],
)
def test_what_is_not_well_formed_or_no_text_is_refused(payload: bytes) -> None:
    refusal(payload)
    refusal(b"\x85\x01dstep\x01" + payload + b"\xf6")


@pytest.mark.parametrize("version", [2, 3, 255, 2**62])
def test_a_record_of_a_newer_schema_says_that_a_newer_stepwell_reads_it(version: int) -> None:
    error = refusal(record({"whatever": 1}, version=version))
    assert f"has schema version {version}, this Stepwell knows 1; use a newer one" in str(error)


ENVELOPES: dict[str, object] = {
    "nothing": None,
    "a number": 5,
    "a text of five": "abcde",
    "a map of five": {1: 1, "step": 2, 3: 3, "d": 4, "m": 5},
    "empty": [],
    "four": [1, "step", 1, ROW],
    "six": [1, "step", 1, ROW, None, None],
    "version is text": ["1", "step", 1, ROW, None],
    "version is a bool": [True, "step", 1, ROW, None],
    "version is a float": [1.0, "step", 1, ROW, None],
    "version is null": [None, "step", 1, ROW, None],
    "version is a number nobody can print": [10**5000, "step", 1, ROW, None],
    "kind is bytes": [1, b"step", 1, ROW, None],
    "kind is null": [1, None, 1, ROW, None],
    "kind is a list": [1, ["step"], 1, ROW, None],
    "time is a float": [1, "step", 1.5, ROW, None],
    "time is null": [1, "step", None, ROW, None],
    "time is a bool": [1, "step", False, ROW, None],
    "time is beyond any calendar": [1, "step", 10**30, ROW, None],
    "time is before any calendar": [1, "step", -(10**30), ROW, None],
    "time is a number nobody can print": [1, "step", 10**5000, ROW, None],
    "meta is a number": [1, "step", 1, ROW, 5],
    "meta is a text with key in it": [1, "step", 1, ROW, "key"],
    "meta is a list": [1, "step", 1, ROW, ["key"]],
    "a key is a number": [1, "step", 1, ROW, {"key": 5}],
    "a key is null": [1, "step", 1, ROW, {"key": None}],
    "a key is a list": [1, "step", 1, ROW, {"key": ["k"]}],
    "a start that is null": [1, "started", 1, None, None],
    "a start that is a list": [1, "started", 1, ["Fix it"], None],
    "a start without a task": [1, "started", 1, {"context": {}}, None],
    "a start with a number for a task": [1, "started", 1, {"task": 5, "context": {}}, None],
    "a start with another complexity": [1, "started", 1, {"task": "t", "context": {"complexity": "hard"}}, None],
    "a start with keys that are no text": [1, "started", 1, {5: 5, "task": "t"}, None],
    "an ending that is a text": [1, "ended", 1, "success", None],
    "an ending without an outcome": [1, "ended", 1, {}, None],
    "an ending with an unknown outcome": [1, "ended", 1, {"outcome": {"kind": "triumph"}}, None],
    "an ending with a time that is none": [
        1,
        "ended",
        1,
        {
            "outcome": {"kind": "failure"},
            "reward": None,
            "reflection": None,
            "summary": {"summary_text": "", "key_concepts": [], "key_steps": []},
            "formula_version": 1,
            "created_at": "yesterday",
        },
        None,
    ],
    "an unknown kind that is no map": [1, "thought", 1, [1, 2], None],
}


@pytest.mark.parametrize("fields", ENVELOPES.values(), ids=ENVELOPES.keys())
def test_an_envelope_of_another_shape_is_refused(fields: object) -> None:
    refusal(cbor2.dumps(fields))


ROWS: dict[str, object] = {
    "nothing": [],
    "a map": {"tool": "grep"},
    "a text of ten": "abcdefghij",
    "four items": ROW[:4],
    "six items": FULL[:6],
    "nine items": FULL[:9],
    "a tool that is a number": [5, *ROW[1:]],
    "an action that is null": ["grep", None, *ROW[2:]],
    "parameters that are a list": ["grep", "look", [], None, None],
    "parameters that are null": ["grep", "look", None, None, None],
    "a result that is a number": ["grep", "look", {}, 5, None],
    "a result that is a text of two": ["grep", "look", {}, "ab", None],
    "a result that is a map": ["grep", "look", {}, {0: 1, 1: 2}, None],
    "a result without a value": ["grep", "look", {}, [0], None],
    "a result of three": ["grep", "look", {}, [0, 1, 2], None],
    "a result of an unknown kind": ["grep", "look", {}, [4, "x"], None],
    "a result of kind -1": ["grep", "look", {}, [-1, "x"], None],
    "a result of kind true": ["grep", "look", {}, [True, "x"], None],
    "a result whose kind is a list": ["grep", "look", {}, [[], "x"], None],
    "an error whose message is a number": ["grep", "look", {}, [1, 5], None],
    "a timeout whose message is null": ["grep", "look", {}, [2, None], None],
    "a latency that is a text": ["grep", "look", {}, None, "5"],
    "a latency that is a bool": ["grep", "look", {}, None, True],
    "tokens that are a float": [*ROW, 1.5, None, None, None, None],
    "a reward that is a text": [*ROW, None, "1", None, None, None],
    "a thought that is a number": [*ROW, None, None, 5, None, None],
    "metadata that are a list": [*ROW, None, None, None, [1], None],
    "a step number that is a text": [*ROW, None, None, None, None, "1"],
}


@pytest.mark.parametrize("data", ROWS.values(), ids=ROWS.keys())
def test_a_step_of_another_shape_is_refused(data: object) -> None:
    assert "is no sound 'step'" in str(refusal(record(data)))


def test_what_a_later_writer_adds_behind_a_step_and_to_its_meta_does_not_hide_it() -> None:
    kept = read(record([*FULL, "new", {"newer": 1}], meta={"key": "k", "new": 5})).steps[0]
    assert (kept.tool, kept.step_number, kept.key) == ("grep", 3, "k")


def test_a_kind_that_is_not_known_is_counted_and_changes_nothing() -> None:
    fold = read(record({"any": "map"}, kind="thought"))
    assert (fold.last_seq, fold.steps, fold.start, fold.ending) == (2, [], None, None)


def test_numbers_that_are_none_come_through_without_harm() -> None:
    kept = read(record(["grep", "look", {"v": math.nan}, [0, math.inf], math.nan])).steps[0]
    assert kept.latency_ms is not None
    assert math.isnan(kept.latency_ms)


def test_an_episode_without_a_start_is_undecodable() -> None:
    with pytest.raises(EpisodeUnavailable, match="has no start record") as refused:
        read(record()).episode()
    assert refused.value.reason == "undecodable"


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(record(["grep", "look", [], None, 5]), id="no step"),
        pytest.param(record("text", kind="tagged"), id="no object"),
        pytest.param(record(kind=7), id="no kind"),
        pytest.param(record(time_ns=2**63), id="no time"),
        pytest.param(record(version=2), id="a newer version"),
        pytest.param(record(meta={"key": 5}), id="no key"),
        pytest.param(cbor2.dumps([1, "step", 1, ROW]), id="four items"),
        pytest.param(cbor2.dumps("record"), id="no array"),
        pytest.param(SOUND[:-1], id="cut off"),
        pytest.param(SOUND + SOUND, id="two in one"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_records_decoded_together_are_sound_or_none_is_given(payload: bytes) -> None:
    assert decode_records([SOUND, START, SOUND]) == [decode_record(one, "a record") for one in (SOUND, START, SOUND)]
    refusal(payload)
    assert decode_records([SOUND, payload, SOUND]) is None


def test_records_whose_boundary_was_moved_are_not_taken_for_others() -> None:
    assert decode_records([]) == []
    assert decode_records([SOUND, SOUND]) is not None
    assert decode_records([SOUND[:-1], SOUND[-1:] + SOUND]) is None  # together they are two sound records
    assert decode_records([SOUND + SOUND[:1], SOUND[1:]]) is None
