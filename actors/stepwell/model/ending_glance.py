"""What a list of episodes shows of an ending, read off the first bytes of its record.

An ending holds a whole analysis, and decoding it costs five times what is wanted of it. Our encoder writes its fields
in one order, so the few that are wanted are where they are looked for, or the record is decoded after all. A text in
between cannot be mistaken for one of them: what is looked for is no valid UTF-8.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple, get_args

import cbor2

from stepwell.model.codec import kind_head
from stepwell.model.event import ENDED
from stepwell.model.outcome import TaskOutcome

_HEAD = kind_head(ENDED)
_KINDS = {cbor2.dumps(kind): kind for kind in (it.__struct_config__.tag for it in get_args(TaskOutcome))}
_OUTCOME = re.compile(
    re.escape(_HEAD)
    + rb"\x1b([\x00-\x7f].{7})[\xa0-\xb7]goutcome[\xa0-\xb7]dkind(%b)" % b"|".join(map(re.escape, _KINDS)),
    re.DOTALL,
).match
_REWARD = re.compile(rb"freward(?:\xf6|[\xa0-\xb7](etotal\xfb.{8})?)", re.DOTALL).search
"""No text holds a "d" with one of these bytes behind it: the first match is the field of the ending."""


class EndingGlance(NamedTuple):
    """When an episode ended, how, and with what reward."""

    time_ns: int
    outcome: str
    reward: float | None


def glance_at_ending(payload: bytes) -> EndingGlance | None:
    """What an ending says first; None if this is none, or not of the form that this version writes: then it has to be
    decoded."""
    if not payload.startswith(_HEAD):
        return None
    found = _OUTCOME(payload)
    if found is None:
        return None
    reward = _REWARD(payload, found.end())
    if reward is None:
        return None
    total: float | None = None
    if reward[1] is not None:
        (total,) = struct.unpack_from(">d", reward[1], 7)
    elif payload[reward.end() - 1] != 0xF6:
        return None  # a reward of another form
    return EndingGlance(int.from_bytes(found[1], "big"), _KINDS[found[2]], total)
