"""Files that no crash and no rot leaves: logs changed at random, and with intent, their checksums made right again."""

from __future__ import annotations

import functools
import posixpath
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from stepstore.log import footer as ft
from stepstore.log import segment_header as sh
from stepstore.log.frame import Batch, build_frame, header_position
from stepstore.log.names import SegmentName, parse_segment_name
from tests.crash import reseal as rs
from tests.crash.dice import Dice, hostile_number, pick
from tests.crash.specimen import STREAMS, Image, compacted, sealed, several_lives, small, unclean_logs
from tests.stepstore.log_lab import LOG

Draft = dict[str, bytes | None]
"""An image under change."""

LARGEST_FILE = 64 * 1024
"""No file is grown beyond this: an input is to be small beside the growth that is allowed."""
BASES_SEED = 8
SECTOR = 512


class Input(NamedTuple):
    """What recovery is fed with. `locked`: another process holds the log, so that LOCK is read, too."""

    image: Image
    locked: bool

    def __repr__(self) -> str:  # hypothesis makes one of each failing input; the whole of it is of no use
        return f"Input({', '.join(sorted(self.image))})"


@functools.cache
def bases() -> Sequence[Image]:
    """Sound logs to begin with, small enough to be opened many thousand times."""
    logs = [
        sealed(BASES_SEED, size=6 * 1024),
        sealed(BASES_SEED, small, size=6 * 1024),
        several_lives(BASES_SEED, size=6 * 1024),
        compacted(BASES_SEED),
        *unclean_logs(BASES_SEED),
    ]
    return [{path: data for path, data in log.image.items() if "/quarantine/" not in path} for log in logs]


def compose(dice: Dice) -> Input:
    """A sound log, changed in one to four ways, its checksums perhaps made right afterwards."""
    draft: Draft = dict(pick(dice, bases()))
    for _ in range(1 + dice.below(4)):
        pick(dice, CHANGES)(dice, draft)
    repair = dice.below(4)
    if repair == 1:
        _reseal(draft)
    elif repair == 2:
        _relink(draft, batches=dice.below(4) > 0)
    return Input(draft, locked=dice.below(32) == 1)


def _segments(draft: Draft) -> list[str]:
    return sorted(path for path, data in draft.items() if path.endswith(".seg") and data is not None)


def _files(draft: Draft) -> list[str]:
    return sorted(path for path, data in draft.items() if data is not None)


def _a_file(dice: Dice, draft: Draft) -> str | None:
    """Some file; a segment more often than not."""
    segments = _segments(draft)
    found = segments if segments and dice.below(3) else _files(draft)
    return pick(dice, found) if found else None


def _a_segment(dice: Dice, draft: Draft) -> tuple[str, bytearray] | None:
    segments = _segments(draft)
    if not segments:
        return None
    path = pick(dice, segments)
    return path, bytearray(draft[path] or b"")


def _stretch(dice: Dice, size: int, longest: int = 2048) -> tuple[int, int]:
    """Start and end of a part of something of this size."""
    start = dice.below(size + 1)
    return start, min(start + dice.below(longest + 1), size)


def _reseal(draft: Draft) -> None:
    for path in _files(draft):
        data = bytearray(draft[path] or b"")
        if path.endswith(".seg"):
            rs.reseal(data)
        elif path.endswith(".idx"):
            rs.reseal_sidecar(data)
        draft[path] = bytes(data)


def _relink(draft: Draft, *, batches: bool) -> None:
    paths = _segments(draft)
    contents = [bytearray(draft[path] or b"") for path in paths]
    rs.relink(contents, batches=batches)
    draft.update(zip(paths, map(bytes, contents), strict=True))


# ---- changes without intent ------------------------------------------------------------------------------------------


def flip_bits(dice: Dice, draft: Draft) -> None:
    """One to eight bits of a file."""
    path = _a_file(dice, draft)
    if path is None or not (data := bytearray(draft[path] or b"")):
        return
    for _ in range(1 + dice.below(8)):
        data[dice.below(len(data))] ^= 1 << dice.below(8)
    draft[path] = bytes(data)


def overwrite(dice: Dice, draft: Draft) -> None:
    """A stretch with noise, zeros or ones."""
    if (path := _a_file(dice, draft)) is None:
        return
    data = bytearray(draft[path] or b"")
    start, end = _stretch(dice, len(data))
    kind = dice.below(3)
    data[start:end] = dice.blob(end - start) if kind == 0 else bytes([0 if kind == 1 else 0xFF]) * (end - start)
    draft[path] = bytes(data)


def splice(dice: Dice, draft: Draft) -> None:
    """A stretch of one file over, or into, another; or out of one."""
    target, source = _a_file(dice, draft), _a_file(dice, draft)
    if target is None or source is None:
        return
    data, other = bytearray(draft[target] or b""), draft[source] or b""
    start, end = _stretch(dice, len(other))
    at = dice.below(len(data) + 1)
    kind = dice.below(3)
    if kind == 0:
        data[at : at + end - start] = other[start:end]
    elif kind == 1:
        data[at:at] = other[start:end]
    else:
        del data[at : at + end - start]
    draft[target] = bytes(data[:LARGEST_FILE])


def swap_sectors(dice: Dice, draft: Draft) -> None:
    """Two sectors, of one file or of two."""
    one, two = _a_file(dice, draft), _a_file(dice, draft)
    if one is None or two is None:
        return
    first, second = bytearray(draft[one] or b""), bytearray(draft[two] or b"")
    here, there = dice.below(len(first) // SECTOR + 1) * SECTOR, dice.below(len(second) // SECTOR + 1) * SECTOR
    if one == two:
        second = first
    a, b = bytes(first[here : here + SECTOR]), bytes(second[there : there + SECTOR])
    if len(a) == len(b):
        first[here : here + SECTOR], second[there : there + SECTOR] = b, a
    draft[one], draft[two] = bytes(first), bytes(second)


def cut_or_extend(dice: Dice, draft: Draft) -> None:
    """The end of a file: away, or zeros or noise behind it."""
    if (path := _a_file(dice, draft)) is None:
        return
    data = draft[path] or b""
    kind = dice.below(3)
    if kind == 0:
        data = data[: dice.below(len(data) + 1)]
    elif kind == 1:
        data += bytes(dice.below(8192))
    else:
        data += bytes(dice.below(600)) + dice.blob(200)
    draft[path] = data[:LARGEST_FILE]


def noise(dice: Dice, draft: Draft) -> None:
    """Nothing but noise in a file."""
    if (path := _a_file(dice, draft)) is not None:
        draft[path] = dice.blob(700)


# ---- files as such ---------------------------------------------------------------------------------------------------

_NAMES = (
    *("LOCK", "FORMAT", "FORMAT.tmp", "spare.tmp", "reserve", "quarantine", "keys", "catalog.sqlite", "stray.tmp"),
    *(
        "MANIFEST-00000001",
        "MANIFEST-00000002",
        "MANIFEST-99999999999999999999",
        "MANIFEST-x",
        "MANIFEST.tmp",
        "compact.tmp",
        "keys/KEYS-1",
        "x.seg",
        "x.idx",
    ),
    *("00000001-0000000000000001.idx", "00000001-ffffffffffffffff.0.seg", "00000002-0000000000000000.1.seg"),
    *("99999999999999999999-0000000000000001.0.seg", "0000000001-0000000000000001.0.seg", "é.seg", "\udcff.tmp"),
    *("٠٠٠٠٠٠٠١-0000000000000001.0.seg",),
)


def _a_name(dice: Dice, draft: Draft) -> str:
    """A path in the log: one that is there, a special one, or that of some segment."""
    kind = dice.below(3)
    if kind == 0:
        return pick(dice, sorted(path for path in draft if path != LOG))
    if kind == 1:
        return posixpath.join(LOG, pick(dice, _NAMES))
    seq, lsn = dice.below(20), hostile_number(dice, 1, 64)
    name = str(SegmentName(seq, lsn, dice.below(3)))
    return posixpath.join(LOG, pick(dice, (name, name.split(".")[0] + ".idx")))


def _remove(draft: Draft, path: str) -> None:
    for inside in [other for other in draft if other == path or other.startswith(path + "/")]:
        del draft[inside]


def _set(draft: Draft, path: str, data: bytes | None) -> None:
    above = posixpath.dirname(path)
    if above != LOG:
        if draft.get(above, b"") is not None:
            _remove(draft, above)
        draft[above] = None
    _remove(draft, path)
    draft[path] = data


def move_files(dice: Dice, draft: Draft) -> None:
    """Remove a file, copy or move one to another name, exchange two, or put a directory in the place of one."""
    names = sorted(path for path in draft if path != LOG)
    if not names:
        return
    path, kind = pick(dice, names), dice.below(5)
    data, other = draft[path], _a_name(dice, draft)
    if kind == 0:
        _remove(draft, path)
    elif kind == 1:
        _set(draft, other, data)
    elif kind == 2:
        _remove(draft, path)
        _set(draft, other, data)
    elif kind == 3 and data is not None and isinstance(draft.get(other), bytes):
        draft[path], draft[other] = draft[other], data
    else:
        _set(draft, other, pick(dice, (None, b"", dice.blob(600))))


def write_format(dice: Dice, draft: Draft) -> None:
    """FORMAT as some other line."""
    line = draft.get(posixpath.join(LOG, "FORMAT")) or b""
    kind = dice.below(5)
    if kind == 0:
        line = line.replace(b" v1 ", b" v%d " % hostile_number(dice, 1, 64))
    elif kind == 1:
        line = line.replace(b" v1 ", b" v" + b"9" * dice.below(5000) + b" ")
    elif kind == 2:
        line = line.upper()
    elif kind == 3:
        line = line + line
    else:
        line = line[:-1]
    _set(draft, posixpath.join(LOG, "FORMAT"), line)


def write_lock(dice: Dice, draft: Draft) -> None:
    """LOCK as something that is not what it should be."""
    text = pick(
        dice, (b"[" * 4096, b"{}", b"[]", b"null", b'{"pid": [1], "host": {}, "since": 1e999}', b"\xff\xfe", b"1")
    )
    _set(draft, posixpath.join(LOG, "LOCK"), pick(dice, (text, dice.blob(100))))


# ---- changes with intent ---------------------------------------------------------------------------------------------


def change_frame_header(dice: Dice, draft: Draft) -> None:
    """One or two fields of a frame header, its checksum right."""
    if (found := _a_segment(dice, draft)) is None:
        return
    path, data = found
    places = rs.frame_places(data)
    if not places:
        return
    at = pick(dice, places)
    fields = rs.frame_fields(data, at)
    for _ in range(1 + dice.below(2)):
        which = dice.below(len(fields) - 1)
        fields[which] = hostile_number(dice, fields[which], rs.FRAME_BITS[which])
    rs.put_frame_fields(data, at, fields)
    draft[path] = bytes(data)


def change_directory(dice: Dice, draft: Draft) -> None:
    """A field of a directory entry, or the length of a payload."""
    if (found := _a_segment(dice, draft)) is None:
        return
    path, data = found
    places = rs.frame_places(data)
    if not places:
        return
    at = pick(dice, places)
    fields = rs.frame_fields(data, at)
    start = at + rs.FRAME_HEADER_BYTES + rs.ITEM_HEAD_BYTES
    end = min(start + fields[rs.DIR_LEN], len(data))
    lengths = max(end - 4 * fields[rs.RECORDS], start)
    if dice.below(2) and end - lengths >= 4:
        place = lengths + dice.below((end - lengths) // 4) * 4
        (length,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, hostile_number(dice, length, 32))
    elif (lengths - start) >= rs.ENTRY.size:
        place = start + dice.below((lengths - start) // rs.ENTRY.size) * rs.ENTRY.size
        entry = list(rs.ENTRY.unpack_from(data, place))
        which = dice.below(len(entry))
        if which == 0:
            entry[0] = pick(dice, STREAMS)
        else:
            entry[which] = hostile_number(dice, entry[which], rs.ENTRY_BITS[which])
        rs.ENTRY.pack_into(data, place, *entry)
    draft[path] = bytes(data)


def change_segment_header(dice: Dice, draft: Draft) -> None:
    """Fields of a segment header, its checksum right; perhaps its name, too."""
    if (found := _a_segment(dice, draft)) is None:
        return
    path, data = found
    rs.reseal(data) if dice.below(4) == 0 else None
    parsed = sh.parse_segment_header(bytes(data[: rs.SEGMENT_HEADER_BYTES]))
    if parsed is None:
        return
    header = parsed[0]
    for _ in range(1 + dice.below(2)):
        header = _change_field(dice, header)
    data[: rs.SEGMENT_HEADER_BYTES] = sh.encode_segment_header(header)[0]
    draft[path] = bytes(data)
    if dice.below(2):
        _remove(draft, path)
        name = SegmentName(header.seq, header.first_lsn, header.generation)
        _set(draft, posixpath.join(LOG, str(name)), bytes(data))


def _change_field(dice: Dice, header: sh.SegmentHeader) -> sh.SegmentHeader:
    which = dice.below(len(header))
    values: list[Any] = list(header)
    if isinstance(values[which], bytes):
        values[which] = dice.blob(16).ljust(16, b"\0")
        return sh.SegmentHeader(*values)
    values[which] = hostile_number(dice, values[which], 64)
    try:
        sh.encode_segment_header(sh.SegmentHeader(*values))
    except struct.error:  # a field of 32 bits
        values[which] &= 0xFFFFFFFF
    return sh.SegmentHeader(*values)


def append_frames(dice: Dice, draft: Draft) -> None:
    """Sound frames with hostile numbers in a sound chain, behind the last one of a segment."""
    if (found := _a_segment(dice, draft)) is None:
        return
    path, data = found
    end = rs.reseal(data)
    parsed = sh.parse_segment_header(bytes(data[: rs.SEGMENT_HEADER_BYTES]))
    if end is None or parsed is None:
        return
    header, offset, lsn, chain = parsed[0], end.offset, end.lsn, end.chain
    del data[offset:]
    durable = max(lsn, 0)
    for _ in range(1 + dice.below(6)):
        at = header_position(offset, header.align if header.align in (0, SECTOR, 4096) else 0)
        if at > LARGEST_FILE or not 0 <= lsn < 2**64 - 1:
            break
        batches = [
            Batch(
                pick(dice, STREAMS),
                max(hostile_number(dice, 1 + dice.below(40), 64), 1),
                [dice.blob(30) for _ in range(1 + dice.below(4))],
                dice.below(8),
            )
            for _ in range(dice.below(4))
        ]
        frame, chain, _entries = build_frame(
            batches,
            offset=at,
            first_lsn=lsn + 1,
            durable_lsn=durable,
            segment_tag=header.segment_tag,
            prev_crc=chain,
        )
        fields = rs.frame_fields(frame, 0)
        if dice.below(8) == 0:
            fields[rs.KIND] = dice.below(8)
            chain = rs.put_frame_fields(frame, 0, fields)
        if dice.below(3) == 0:
            which = dice.below(len(fields) - 1)
            fields[which] = hostile_number(dice, fields[which], rs.FRAME_BITS[which])
            chain = rs.put_frame_fields(frame, 0, fields)
        data += bytes(at - len(data)) + frame
        offset, lsn = len(data), fields[rs.FIRST_LSN] + fields[rs.SPAN] - 1
        durable = max(min(lsn, 2**64 - 1), 0)
    if dice.below(2):
        data += bytes(dice.below(4096))
    draft[path] = bytes(data[:LARGEST_FILE])


def change_index(dice: Dice, draft: Draft) -> None:
    """Numbers in the index of a segment, in its footer or its sidecar, all checksums right; its trailer names it."""
    found = _an_index(dice, draft)
    if found is None:
        return
    path, data, start, end = found
    head = rs.index_head(data, start)
    if head is None:
        return
    for _ in range(1 + dice.below(2)):
        if dice.below(3) == 0:
            head = _change_index_head(dice, head)
            data[start : start + ft.HEAD_BYTES] = ft.encode_head(head)
        else:
            _change_index_entry(dice, data, start, end, head)
    _reseal_index(path, data)
    if dice.below(2) and len(data) - ft.TRAILER_BYTES >= end:
        _change_trailer(data, index_bytes=head.size % 2**32)
    draft[path] = bytes(data)


def _an_index(dice: Dice, draft: Draft) -> tuple[str, bytearray, int, int] | None:
    paths = [path for path, data in sorted(draft.items()) if data is not None and path.endswith((".seg", ".idx"))]
    if not paths:
        return None
    path = pick(dice, paths)
    data = bytearray(draft[path] or b"")
    place = rs.index_place(data, sidecar=path.endswith(".idx"))
    return None if place is None else (path, data, *place)


def _reseal_index(path: str, data: bytearray) -> None:
    if path.endswith(".idx"):
        rs.reseal_sidecar(data)
    else:
        rs.reseal(data, ends=False)


def _change_index_head(dice: Dice, head: ft.IndexHead) -> ft.IndexHead:
    values: list[Any] = list(head)
    which = pick(dice, [number for number, value in enumerate(values) if isinstance(value, int)])
    bits = pick(dice, (32, 63))
    values[which] = hostile_number(dice, values[which], bits)
    try:
        ft.encode_head(ft.IndexHead(*values))
    except struct.error:  # a field of 32 bits
        values[which] &= 0xFFFFFFFF
    return ft.IndexHead(*values)


def _change_index_entry(dice: Dice, data: bytearray, start: int, end: int, head: ft.IndexHead) -> None:
    """A number in one of the tables, or a stream in the open set or among the fingerprints."""
    at, count, size = pick(
        dice,
        (
            (head.fingerprints_at, head.streams, ft.FINGERPRINT_BYTES),
            (head.open_at, head.open_streams, ft.OPEN_BYTES),
            (head.frames_at, head.frames, ft.FRAME_ENTRY.size),
            (head.streams_at, head.streams, ft.STREAM_ENTRY.size),
            (head.batches_at, head.batches, ft.BATCH_ENTRY_BYTES),
        ),
    )
    place = start + at + dice.below(min(max(count, 1), 100)) * size + dice.below(size // 4) * 4
    if place + 4 <= end:
        (value,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, hostile_number(dice, value, 32))


def change_trailer(dice: Dice, draft: Draft) -> None:
    """A number in a trailer, its checksum right."""
    found = _an_index(dice, draft)
    if found is None:
        return
    path, data, _start, _end = found
    which = pick(dice, ft.Trailer._fields)
    _change_trailer(data, **{which: hostile_number(dice, len(data), pick(dice, (32, 64)))})
    draft[path] = bytes(data)


def _change_trailer(data: bytearray, **fields: int) -> None:
    trailer = ft.parse_trailer(bytes(data[-ft.TRAILER_BYTES :]))
    if trailer is None:
        return
    try:
        data[-ft.TRAILER_BYTES :] = ft.encode_trailer(trailer._replace(**fields))
    except struct.error:  # a field of 32 bits
        narrow = {name: value & 0xFFFFFFFF for name, value in fields.items()}
        data[-ft.TRAILER_BYTES :] = ft.encode_trailer(trailer._replace(**narrow))


def change_manifest(dice: Dice, draft: Draft) -> None:
    """Numbers in a manifest, its checksum right; perhaps its name, too."""
    paths = sorted(path for path, data in draft.items() if data and "/MANIFEST-" in path)
    if not paths:
        return
    path = pick(dice, paths)
    data = bytearray(draft[path] or b"")
    for _ in range(1 + dice.below(2)):
        places = [match.start() + 1 for match in re.finditer(rb"[\x1a\x1b\x9a]", data[:-5])]
        if places:
            at = pick(dice, places)
            bits = 64 if data[at - 1] == 0x1B else 32
            value = int.from_bytes(data[at : at + bits // 8])
            data[at : at + bits // 8] = hostile_number(dice, value, bits).to_bytes(bits // 8)
    data = data[:LARGEST_FILE]
    data[-4:] = zlib.crc32(data[:-5]).to_bytes(4)
    if dice.below(4) == 0:
        _remove(draft, path)
        path = posixpath.join(LOG, f"MANIFEST-{dice.below(12):08d}")
    _set(draft, path, bytes(data))


def many_frames(dice: Dice, draft: Draft) -> None:
    """Hundreds of the smallest frames, or one frame of hundreds of the smallest batches."""
    if (found := _a_segment(dice, draft)) is None:
        return
    path, data = found
    end = rs.reseal(data)
    parsed = sh.parse_segment_header(bytes(data[: rs.SEGMENT_HEADER_BYTES]))
    if end is None or parsed is None or not 0 <= end.lsn < 2**63:
        return
    offset, lsn, chain = end.offset, end.lsn, end.chain
    del data[offset:]
    many = [Batch(pick(dice, STREAMS), 1 + n, [b""], 0) for n in range(300)]
    groups = [many] if dice.below(2) else [many[n : n + 1] for n in range(200)]
    for batches in groups:
        at = header_position(offset)
        if at > LARGEST_FILE:
            break
        frame, chain, _entries = build_frame(
            batches, offset=at, first_lsn=lsn + 1, durable_lsn=lsn, segment_tag=parsed[0].segment_tag, prev_crc=chain
        )
        data += bytes(max(at - len(data), 0)) + frame
        offset, lsn = len(data), lsn + len(batches)
    draft[path] = bytes(data[:LARGEST_FILE])


def begin_at(dice: Dice, draft: Draft) -> None:
    """A log of one segment whose numbers begin somewhere else."""
    segments = _segments(draft)
    if (
        not segments
        or (parsed := sh.parse_segment_header((draft[segments[0]] or b"")[: rs.SEGMENT_HEADER_BYTES])) is None
    ):
        return
    for path in segments:
        _remove(draft, path)
    header = parsed[0]._replace(first_lsn=hostile_number(dice, 1, 64), seq=1, seq_last=hostile_number(dice, 1, 64))
    name = posixpath.join(LOG, str(SegmentName(1, header.first_lsn, header.generation)))
    draft[name] = sh.encode_segment_header(header)[0]
    append_frames(dice, draft)


def renumber(dice: Dice, draft: Draft) -> None:
    """All segments under other numbers, consistently."""
    by = pick(dice, (-1, 1, 2**32, 2**64 - 3))
    for path in _segments(draft):
        name = parse_segment_name(posixpath.basename(path))
        parsed = sh.parse_segment_header((draft[path] or b"")[: rs.SEGMENT_HEADER_BYTES])
        if name is None or parsed is None:
            continue
        header = parsed[0]._replace(seq=(parsed[0].seq + by) % 2**64, prev_seq=(parsed[0].prev_seq + by) % 2**64)
        data = sh.encode_segment_header(header)[0] + (draft[path] or b"")[rs.SEGMENT_HEADER_BYTES :]
        _remove(draft, path)
        draft[posixpath.join(LOG, str(name._replace(seq=header.seq)))] = data


CHANGES: Sequence[Callable[[Dice, Draft], None]] = (
    *(flip_bits, overwrite, splice, swap_sectors, cut_or_extend, noise, move_files, write_format, write_lock),
    *(change_frame_header, change_directory, change_segment_header, append_frames, change_index, change_trailer) * 2,
    *(change_manifest, many_frames, begin_at, renumber),
)
