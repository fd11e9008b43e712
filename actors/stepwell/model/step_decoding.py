"""The steps of an episode from their records: one, or many at once.

Many at once are the fast lane of reading. One by one, three quarters of the time of a step go into calls in Python;
here the envelopes are cut off, the rest of all is decoded as the items of one array, and each check looks at a whole
column. What is accepted, and what comes out, is what `codec.decode_record` and `EpisodeFold.add` make of the same
records; where any of them is not sound there is no answer, and those two say which, and why.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterable, Sequence
from itertools import chain, count
from typing import Any

import cbor2

from stepwell.model import codec
from stepwell.model.event import utc, utc_of_each
from stepwell.model.plain_step import STEP_HEAD
from stepwell.model.step import EpisodeStep, StepResult, StepSuccess

PIECE_BYTES = 256 * 1024
"""Records are decoded together up to this, so that a crafted one cannot become large."""

_HEAD = struct.Struct(f">{len(STEP_HEAD)}xQ")  # what says that it is a step, and its time
_INT64 = 2**63
_MARK = b"\x1b" + secrets.token_bytes(8)
"""Stands behind each record. Nobody can have written it into one, so a record that holds more or less than one item of
data and one of meta moves a mark from its place."""
_MARK_VALUE = int.from_bytes(_MARK[1:], "big")
_ITEMS = 3  # data, meta, mark


def episode_step(seq: int, place: int, time_ns: int, data: list[Any], meta: dict[str, Any] | None) -> EpisodeStep:
    """One step from what its record holds; number `place` among the steps of its episode."""
    tokens_used = reward = thought = metadata = number = None
    if len(data) == 5:
        tool, action, parameters, coded, latency_ms = data
    else:
        tool, action, parameters, coded, latency_ms, tokens_used, reward, thought, metadata, number = data[:10]
    return EpisodeStep(
        seq=seq,
        step_number=place if number is None else number,
        timestamp=utc(time_ns),
        time_ns=time_ns,
        tool=tool,
        action=action,
        parameters=parameters,
        result=codec.decode_result(coded),
        latency_ms=latency_ms,
        tokens_used=tokens_used,
        reward=reward,
        thought=thought,
        metadata=metadata or {},
        key=None if meta is None else meta.get("key"),
    )


def are_steps(payloads: Iterable[bytes]) -> list[bool]:
    """Of each record, whether it begins as a step that this version has written, so that it may be among those here."""
    return [payload.startswith(STEP_HEAD) for payload in payloads]


def decode_steps(
    payloads: Sequence[bytes], seqs: Sequence[int], place: int
) -> tuple[list[EpisodeStep], list[int], int] | None:
    """The steps that these records are (see `are_steps`), the first of them number `place` among the steps of its
    episode; which of them have a key, counted from 0; and their latest time in nanoseconds. None if not all are sound,
    or if they are too large to be decoded at once."""
    if sum(map(len, payloads)) > PIECE_BYTES:
        return None
    try:
        times = list(chain.from_iterable(map(_HEAD.unpack_from, payloads)))
        bodies = _MARK.join([payload[_HEAD.size :] for payload in payloads])
        head = b"\x9a" + (_ITEMS * len(payloads)).to_bytes(4, "big")
        items = cbor2.loads(b"".join((head, bodies, _MARK)), **codec.STRICTLY)
    except (struct.error, cbor2.CBORDecodeError, ValueError, TypeError, RecursionError):
        return None
    rows, metas = items[::_ITEMS], items[1::_ITEMS]
    if items[2::_ITEMS] != [_MARK_VALUE] * len(payloads) or max(times) >= _INT64 or set(map(type, rows)) != {list}:
        return None
    if set(map(len, rows)) == {codec.PLAIN_FIELDS} and metas.count(None) == len(metas):
        steps = _plain(zip(seqs, count(place), utc_of_each(times), times, strict=False), rows)
        return None if steps is None else (steps, [], max(times))
    if not (all(map(codec.is_step, rows)) and all(map(codec.is_meta, metas))):
        return None
    steps = list(map(episode_step, seqs, count(place), times, rows, metas))
    return steps, [at for at, step in enumerate(steps) if step.key is not None], max(times)


def _plain(heads: Iterable[tuple[Any, ...]], rows: list[list[Any]]) -> list[EpisodeStep] | None:
    """Steps with the fields alone that every one has, so nearly all; None if they are none.

    `heads`: (seq, number among the steps, timestamp, time in ns).
    """
    tools, actions, parameters, coded, latencies = zip(*rows, strict=True)
    if (
        set(map(type, tools)) != {str}
        or set(map(type, actions)) != {str}
        or set(map(type, parameters)) != {dict}
        or not codec.NUMBERS.issuperset(map(type, latencies))
    ):
        return None
    results = _results(coded)
    if results is None:
        return None
    return [
        EpisodeStep(
            seq=seq,
            step_number=step_number,
            timestamp=timestamp,
            time_ns=time_ns,
            tool=tool,
            action=action,
            parameters=given,
            result=result,
            latency_ms=latency_ms,
            tokens_used=None,
            reward=None,
            thought=None,
            metadata={},
            key=None,
        )
        for (seq, step_number, timestamp, time_ns), tool, action, given, result, latency_ms in zip(
            heads, tools, actions, parameters, results, latencies, strict=True
        )
    ]


def _results(coded: tuple[Any, ...]) -> list[StepResult | None] | None:
    if set(map(type, coded)) == {list} and set(map(len, coded)) == {2}:
        codes, outputs = zip(*coded, strict=True)
        if set(map(type, codes)) == {int} and not any(codes):
            return list(map(StepSuccess, outputs))
    if all(one is None or codec.is_result(one) for one in coded):
        return list(map(codec.decode_result, coded))
    return None
