"""What is read off the first bytes of an ending is what decoding all of it gives."""

from __future__ import annotations

import datetime as dt
import struct

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell import Abstained, Failure, Interrupted, Limits, PartialSuccess, Success
from stepwell.model.analysis import CompletionAnalysis, EpisodeSummary, Reflection, RewardScore
from stepwell.model.codec import decode_record, encode_record
from stepwell.model.ending import encode_ending
from stepwell.model.ending_glance import glance_at_ending
from stepwell.model.event import ENDED
from stepwell.model.outcome import TaskOutcome, outcome_kind

# What is looked for, as text that holds it as nearly as a text can.
NASTY = [
    "freward",
    "goutcomedkindgsuccess",
    b"freward\xa7etotal\xfb".decode("latin-1"),
    b"freward\xf6".decode("latin-1"),
    "reward",
    "",
]
texts = st.one_of(st.text(max_size=20), st.sampled_from(NASTY))
lists = st.lists(texts, max_size=3)
outcomes: st.SearchStrategy[TaskOutcome] = st.one_of(
    st.builds(Success, texts, lists),
    st.builds(PartialSuccess, texts, lists, lists),
    st.builds(Failure, texts, st.none() | texts),
    st.builds(Abstained, texts, st.integers(0, 2**40), lists),
    st.builds(Interrupted, texts),
)
totals = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
REWARDS_IN_METADATA = [{}, {"reward": {"total": 9.5}}, {"reward": None}]


def ending(outcome: TaskOutcome, total: float | None, said: str, metadata: dict[str, object], time_ns: int) -> bytes:
    reward = None
    if total is not None:
        reward = RewardScore(
            total=total,
            base=1.0,
            efficiency=1.0,
            complexity_bonus=1.0,
            quality_multiplier=1.0,
            learning_bonus=0.0,
            abstention_score=0.0,
        )
    analysis = CompletionAnalysis(
        reward=reward,
        reflection=Reflection(successes=[said], improvements=[], insights=[]),
        summary=EpisodeSummary(summary_text=said, key_concepts=[said], key_steps=[]),
        created_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    )
    return encode_ending(outcome, analysis, metadata, time_ns, Limits())


@given(outcomes, st.none() | totals, texts, st.sampled_from(REWARDS_IN_METADATA), st.integers(2**40, 2**62))
def test_every_ending_of_ours_is_seen_as_it_is(
    outcome: TaskOutcome, total: float | None, said: str, metadata: dict[str, object], time_ns: int
) -> None:
    payload = ending(outcome, total, said, metadata, time_ns)
    decoded = decode_record(payload, "an ending")
    reward = decoded.data["reward"]
    assert glance_at_ending(payload) == (
        decoded.time_ns,
        outcome_kind(outcome),
        None if reward is None else reward["total"],
    )


@pytest.mark.parametrize(
    "data",
    [
        {"outcome": {"kind": "triumph"}, "reward": None},
        {"reward": None, "outcome": {"kind": "success"}},
        {"outcome": {"verdict": "", "kind": "success"}, "reward": None},
        {"outcome": {"kind": "success"}, "reward": {"base": 1.0, "total": 1.0}, "metadata": {"reward": {"total": 2.0}}},
        {"outcome": {"kind": "success"}, "reward": {"total": 1}},
        {"outcome": {"kind": "success"}},
    ],
)
def test_of_another_form_nothing_is_claimed(data: dict[str, object]) -> None:
    assert glance_at_ending(encode_record(ENDED, 2**60, data, None, path="ending", limit=2**20)) is None


def test_a_number_that_is_written_in_another_width_is_left_to_the_decoder() -> None:
    payload = cbor2.dumps([1, ENDED, 2**60, {"outcome": {"kind": "success"}, "reward": {"total": float("nan")}}, None])
    assert struct.pack(">d", 1.0) not in payload
    assert glance_at_ending(payload) is None


def test_another_record_is_no_ending() -> None:
    assert glance_at_ending(encode_record("started", 2**60, {}, None, path="start", limit=2**20)) is None
