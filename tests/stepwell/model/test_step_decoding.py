"""Many steps decoded at once are what the same records are one by one, sound or not."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepstore.journal import Record
from stepwell.errors import EpisodeUnavailable
from stepwell.model.codec import decode_record, encode_step
from stepwell.model.event import utc, utc_of_each
from stepwell.model.fold import EpisodeFold
from stepwell.model.limits import Limits
from stepwell.model.plain_step import STEP_HEAD
from stepwell.model.step import ExecutionStep, StepError, StepSuccess
from stepwell.model.step_decoding import PIECE_BYTES, are_steps, decode_steps
from stepwell.runtime.reading import fold_records
from tests.stepwell.model.test_hostile_records import FULL, ROW, SOUND, START, record
from tests.stepwell.model.test_record_round_trip import exact, plainly_encoded, steps

steady = settings(derandomize=True, database=None, deadline=None, max_examples=300)

Outcome = tuple[list[str], tuple[int, ...], list[Record], str]


def records_of(payloads: Sequence[bytes]) -> list[Record]:
    return [Record(b"s" * 16, seq, 3 * seq, payload) for seq, payload in enumerate(payloads, 2)]


def one_by_one(payloads: Sequence[bytes]) -> Outcome:
    """What an episode is whose records behind its start are these, folded by nothing but `decode_record` and `add`."""
    fold, keyed, error = EpisodeFold("e"), list[Record](), ""
    fold.add(1, 3, decode_record(START, "a start"))
    try:
        for item in records_of(payloads):
            decoded = decode_record(item.payload, f"record {item.seq} of episode 'e'")
            fold.add(item.seq, item.lsn, decoded)
            if decoded.meta is not None and "key" in decoded.meta:
                keyed.append(item)
    except EpisodeUnavailable as refused:
        error = f"{refused.reason}: {refused}"
    return _outcome(fold, keyed, error)


def at_once(payloads: Sequence[bytes]) -> Outcome:
    """The same as reading an episode does it."""
    fold, keyed, error = EpisodeFold("e"), list[Record](), ""
    try:
        fold_records(fold, [Record(b"s" * 16, 1, 3, START), *records_of(payloads)], keyed)
    except EpisodeUnavailable as refused:
        error = f"{refused.reason}: {refused}"
    return _outcome(fold, keyed, error)


def _outcome(fold: EpisodeFold, keyed: list[Record], error: str) -> Outcome:
    reached = (fold.last_seq, fold.last_lsn, fold.last_ns, fold.start_ns, fold.end_seq)
    return list(map(exact, fold.steps)), reached, keyed, error


_times = st.integers(2**32, 2**62) | st.sampled_from([2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**32 * 10**9])
_plain = st.builds(plainly_encoded, steps, _times)
_ordinary = st.builds(
    plainly_encoded,
    st.builds(ExecutionStep, tool=st.just("grep"), result=st.builds(StepSuccess, st.text(max_size=9))),
    _times,
)
ODD: list[Any] = [
    *(None, True, 0, 1, -1, 4, 0.5, "", "x", [], {}, {"a": 5}, 2**70),
    *([0, ""], [1, "no"], [1, 5], [4, ""], [False, ""], [0.0, ""], [0], [0, "", ""]),
]


@st.composite
def _rows(draw: st.DrawFn) -> bytes:
    """A record that begins as a step, with an odd value somewhere."""
    row = list(draw(st.sampled_from([ROW, FULL, [*FULL, "of a newer writer"], ROW[:4], [*ROW, 1]])))
    row[draw(st.integers(0, len(row) - 1))] = draw(st.sampled_from(ODD))
    meta: Any = draw(st.sampled_from([None, {}, {"key": "k"}, {"key": 5}, {"other": 1}, [], 7]))
    data: Any = draw(st.sampled_from([row, row, row, {}, "rows!", None]))
    return cbor2.dumps([1, "step", draw(_times), data, meta])


@st.composite
def _mangled(draw: st.DrawFn) -> bytes:
    """A sound record with a byte changed, cut off, or put behind it."""
    payload = bytearray(draw(_plain | _ordinary))
    place = draw(st.integers(0, len(payload) - 1))
    match draw(st.integers(0, 2)):
        case 0:
            payload[place] = draw(st.integers(0, 255))
        case 1:
            del payload[place:]
        case _:
            payload += draw(st.binary(min_size=1, max_size=9))
    return bytes(payload)


_other_kinds = st.just(record({"anything": 1}, kind="something newer")) | st.just(record({"tags": 5}, kind="tagged"))


@steady
@given(st.lists(_plain | _ordinary | _other_kinds, min_size=1, max_size=12))
@example([plainly_encoded(ExecutionStep("grep"), 2**40)])
@example([plainly_encoded(ExecutionStep("grep", result=StepError("no")), 2**40)] * 3)
@example([plainly_encoded(ExecutionStep("grep", key="k", step_number=7), 2**40), SOUND, START])
def test_sound_records_of_any_kind(payloads: list[bytes]) -> None:
    assert at_once(payloads) == one_by_one(payloads)


@steady
@given(st.lists(st.one_of(_rows(), _mangled(), _ordinary, _plain), min_size=1, max_size=6))
@example([b""])
@example([STEP_HEAD])
@example([STEP_HEAD + b"\x7f" * 8])
@example([record(b"\xf6", time_ns=2**40)])
def test_records_that_are_not_sound_are_refused_at_the_same_place_with_the_same_words(payloads: list[bytes]) -> None:
    assert at_once(payloads) == one_by_one(payloads)


@pytest.mark.parametrize("row", [ROW, FULL], ids=["plain", "full"])
@pytest.mark.parametrize("place", range(len(FULL)))
def test_an_odd_value_in_any_field_among_sound_steps(row: list[Any], place: int) -> None:
    sound = record(time_ns=2**40)
    for value in ODD if place < len(row) else []:
        odd = record([*row[:place], value, *row[place + 1 :]], time_ns=2**41)
        payloads = [sound, odd, sound]
        assert are_steps(payloads) == [True] * 3
        assert at_once(payloads) == one_by_one(payloads), value


@pytest.mark.parametrize("seed", range(20))
def test_the_times_of_many_are_those_of_each(seed: int) -> None:
    dice = random.Random(seed)
    highest = dice.choice([10**3, 10**12, 2 * 10**18, 2**32 * 10**9 - 1, 2**63 - 1])
    times = [0, 999, 1_000, highest, *(dice.randint(0, highest) for _ in range(2_000))]
    assert utc_of_each(times) == list(map(utc, times))
    assert {time.tzinfo for time in utc_of_each(times)} == {dt.UTC}
    assert utc_of_each([]) == []


def _with_parameters(encoded: bytes) -> bytes:
    """A step whose parameters are these bytes."""
    return record(["grep", "look", {}, None, 5], time_ns=2**40).replace(b"\xa0", encoded)


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(b"\xa2\x61a\x01\x61a\x02", id="a name twice"),
        pytest.param(b"\xbf\xff", id="of no definite length"),
        pytest.param(b"\xa1\x61a\xc0\x61x", id="a tag"),
        pytest.param(b"\xa1\x61a\xd9\xd9\xf7\x01", id="the tag of CBOR itself"),
        pytest.param(b"\xa1\x61a" + b"\x81" * 500 + b"\x01", id="too deep"),
        pytest.param(b"\xa1\x61a\xf7", id="undefined"),
        pytest.param(b"\xa1\x61a\xff", id="a break"),
        pytest.param(b"\xa1\x61a\x61\xff", id="no UTF-8"),
        pytest.param(b"\xa1\x01\x02", id="a name that is a number"),
    ],
)
def test_cbor_that_no_record_of_ours_holds(encoded: bytes) -> None:
    sound = record(time_ns=2**40)
    assert at_once([sound, _with_parameters(encoded), sound]) == one_by_one([sound, _with_parameters(encoded), sound])


@pytest.mark.parametrize("depth", range(56, 70))
def test_what_is_too_deep_is_so_at_the_same_depth(depth: int) -> None:
    payload = _with_parameters(b"\xa1\x61a" + b"\x81" * depth + b"\x01")
    assert at_once([payload]) == one_by_one([payload])


def test_a_first_record_that_is_a_step_names_no_episode() -> None:
    with pytest.raises(EpisodeUnavailable, match="belongs to None"):
        fold_records(EpisodeFold("e"), [Record(b"s" * 16, 1, 1, SOUND)], [])


@pytest.mark.parametrize("cut", range(1, len(SOUND) - len(STEP_HEAD) - 8))
def test_two_records_whose_boundary_was_moved_are_not_mended(cut: int) -> None:
    # Joined, the bytes of the two are those of two sound steps; each by itself is not.
    head = SOUND[: len(STEP_HEAD) + 8]
    first, second = SOUND + SOUND[len(head) : len(head) + cut], head + SOUND[len(head) + cut :]
    assert are_steps([first, second]) == [True, True]
    assert decode_steps([first, second], [2, 3], 1) is None
    assert at_once([first, second]) == one_by_one([first, second])


def test_an_episode_of_ordinary_steps_takes_the_fast_lane_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing else would notice if every slice were decoded one by one.
    payloads = [encode_step(ExecutionStep("grep", latency_ms=n), 2**40 + n, Limits()) for n in range(256)]
    keyed = [encode_step(ExecutionStep("grep", key=f"k{n}", thought="hm"), 2**41, Limits()) for n in range(3)]
    expected = one_by_one([*payloads, *keyed])
    monkeypatch.setattr(EpisodeFold, "add", None)
    fold, found = EpisodeFold("e"), list[Record]()
    fold_records(fold, records_of([*payloads, *keyed]), found)
    assert list(map(exact, fold.steps)) == expected[0]
    assert found == expected[2] == records_of([*payloads, *keyed])[256:]


def test_records_too_large_to_be_decoded_together_are_decoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    step = ExecutionStep("grep", result=StepSuccess("x" * (PIECE_BYTES // 5)))
    payloads = [encode_step(step, 2**40 + n, Limits()) for n in range(11)]
    pieces: list[int] = []
    original = decode_steps

    def noted(payloads: Sequence[bytes], seqs: Sequence[int], place: int) -> Any:
        found = original(payloads, seqs, place)
        pieces.append(0 if found is None else len(found[0]))
        return found

    monkeypatch.setattr("stepwell.model.fold.decode_steps", noted)
    assert at_once(payloads) == one_by_one(payloads)
    assert sum(pieces) == 11
    assert max(pieces) < 5
    assert pieces[0] == 0  # all at once was too much
