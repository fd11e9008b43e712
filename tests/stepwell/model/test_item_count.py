"""A large payload is counted before it is decoded, so that a crafted one cannot fill memory."""

from __future__ import annotations

import tracemalloc

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell import EpisodeUnavailable, ExecutionStep, Limits, StepSuccess, TooLarge
from stepwell.model.codec import decode_record, decode_records, encode_step
from stepwell.model.item_count import MAX_ITEMS, has_too_many_items

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(max_size=5), inner, max_size=10),
    max_leaves=60,
)


def items_in(value: object) -> int:
    if isinstance(value, list):
        return 1 + sum(map(items_in, value))
    if isinstance(value, dict):
        return 1 + sum(items_in(key) + items_in(item) for key, item in value.items())
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**64) <= value < 2**64:
        return 2  # a tag and a byte string
    return 1


@given(values)
def test_the_count_is_that_of_the_decoded_value(value: object) -> None:
    data, items = cbor2.dumps(value), items_in(value)
    assert not has_too_many_items(data, items)
    assert has_too_many_items(data, items - 1)


@pytest.mark.parametrize(
    "item", [b"\x00", b"\x80", b"\xa0", b"\x60", b"\xf6"], ids=["ints", "arrays", "maps", "texts", "nulls"]
)
def test_a_crafted_record_of_many_tiny_items_is_undecodable_and_fills_no_memory(item: bytes) -> None:
    many = MAX_ITEMS + 10
    payload = b"\x85\x01\x64step\x1b" + bytes(8) + b"\x9a" + many.to_bytes(4, "big") + item * many + b"\xf6"
    tracemalloc.start()
    try:
        with pytest.raises(EpisodeUnavailable, match="more than 500,000 items"):
            decode_record(payload, "a record")
        assert decode_records([payload]) is None
        assert tracemalloc.get_traced_memory()[1] < 4 * len(payload)
    finally:
        tracemalloc.stop()


def test_a_large_record_of_few_items_is_decoded() -> None:
    record = [1, "note", 5, {"text": "x" * 3_000_000, "list": list(range(100_000))}, None]
    assert decode_record(cbor2.dumps(record), "a record").data["list"][-1] == 99_999


def test_what_the_door_accepts_can_be_decoded_and_more_is_refused() -> None:
    few, many = {"a": list(range(240_000))}, {"a": list(range(260_000))}
    step = ExecutionStep("tool", "action", few, StepSuccess(few))
    assert decode_record(encode_step(step, 5, Limits()), "a record").data[2] == few
    with pytest.raises(TooLarge, match="more than 500,000 items in one record"):
        encode_step(ExecutionStep("tool", "action", many, StepSuccess(many)), 5, Limits())
