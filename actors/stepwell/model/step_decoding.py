"""The steps of an episode from their records: one, or many at once.

Many at once are the fast lane of reading. One by one, three quarters of the time of a step go into calls in Python;
here the envelopes are cut off, the rest of all is decoded as the items of one array, and each check looks at a whole
column. What is accepted, and what comes out, is what `codec.decode_record` and `EpisodeFold.add` make of the same
records; where any of them is not sound there is no answer, and those two say which, and why.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import chain, count, repeat
from typing import Any

import cbor2

from stepwell.model import codec
from stepwell.model.event import utc, utc_of_each
from stepwell.model.plain_step import STEP_HEAD
from stepwell.model.step import EpisodeStep, StepResult, StepSuccess

PIECE_BYTES = 256 * 1024
"""Records are decoded together up to this, so that a crafted one cannot become large."""

_HEAD = struct.Struct(f">{len(STEP_HEAD)}xQB")  # what says that it is a step, its time, how its data begins
_PLAIN_DATA = 0x80 + codec.PLAIN_FIELDS  # an array of the fields that every step has
_INT64 = 2**63
_BEHIND = 2  # items behind the data of a record: its meta, and the mark


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
    return list(map(bytes.startswith, payloads, repeat(STEP_HEAD)))


def decode_steps(
    payloads: Sequence[bytes], seqs: Sequence[int], place: int
) -> tuple[list[EpisodeStep], list[int], int] | None:
    """The steps that these records are (see `are_steps`), the first of them number `place` among the steps of its
    episode; which of them have a key, counted from 0; and their latest time in nanoseconds. None if not all are sound,
    or if they are too large to be decoded at once."""
    if sum(map(len, payloads)) > PIECE_BYTES:
        return None
    try:
        heads = list(chain.from_iterable(map(_HEAD.unpack_from, payloads)))
        times = heads[::2]
        is_plain = heads[1::2].count(_PLAIN_DATA) == len(payloads)
        # Of plain steps the fields are items themselves: an array for each would be made only to be taken apart.
        columns = _decode(payloads, _HEAD.size, codec.PLAIN_FIELDS) if is_plain else _decode(payloads, _HEAD.size - 1)
    except (struct.error, cbor2.CBORDecodeError, ValueError, TypeError, RecursionError):
        return None
    if columns is None or (latest_ns := max(times)) >= _INT64:
        return None
    *data, metas = columns
    keys = None
    if metas.count(None) < len(metas):
        if not all(map(codec.is_meta, metas)):
            return None
        keys = [None if meta is None else meta.get("key") for meta in metas]
    steps = _plain(seqs, place, times, data, keys) if is_plain else _full(seqs, place, times, data[0], metas)
    if steps is None:
        return None
    return steps, [at for at, key in enumerate(keys or ()) if key is not None], latest_ns


def _decode(payloads: Sequence[bytes], cut: int, fields: int = 1) -> list[list[Any]] | None:
    """The items of each record from byte `cut` on, which are to be so many and its meta, column by column; None if they
    are not. Raises: as cbor2 does."""
    size = fields + _BEHIND
    head = b"\x9a" + (size * len(payloads)).to_bytes(4, "big")
    bodies = codec.MARK.join([payload[cut:] for payload in payloads])
    # As deep in here as in its own record.
    limits = {**codec.STRICTLY, "max_depth": codec.STRICTLY["max_depth"] - (fields > 1)}
    items = cbor2.loads(b"".join((head, bodies, codec.MARK)), **limits)
    if items[size - 1 :: size] != [codec.MARK_VALUE] * len(payloads):
        return None
    return [items[place::size] for place in range(size - 1)]


def _full(
    seqs: Sequence[int], place: int, times: list[int], rows: list[Any], metas: list[Any]
) -> list[EpisodeStep] | None:
    """Steps of which some have more fields than every one has; None if they are none."""
    if not all(map(codec.is_step, rows)):
        return None
    return list(map(episode_step, seqs, count(place), times, rows, metas))


def _plain(
    seqs: Sequence[int], place: int, times: list[int], data: list[list[Any]], keys: list[str | None] | None
) -> list[EpisodeStep] | None:
    """Steps with the fields alone that every one has, so nearly all; None if they are none."""
    tools, actions, parameters, coded, latencies = data
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
    nothing = repeat(None)
    columns: tuple[Iterable[Any], ...] = (  # in the order of the fields of an `EpisodeStep`; by name takes half longer
        *(seqs, count(place), utc_of_each(times), times, tools, actions, parameters, results, latencies),
        *(nothing, nothing, nothing, [{} for _ in tools], nothing if keys is None else keys),
    )
    return list(map(EpisodeStep, *columns))


def _results(coded: list[Any]) -> list[StepResult | None] | None:
    if set(map(type, coded)) == {list} and set(map(len, coded)) == {2}:
        codes, outputs = zip(*coded, strict=True)
        if set(map(type, codes)) == {int} and not any(codes):
            return list(map(StepSuccess, outputs))
    if all(one is None or codec.is_result(one) for one in coded):
        return list(map(codec.decode_result, coded))
    return None
