"""Save what can be saved of a damaged log: write a new one that is sound, and a list of what is missing.

The old log is only read. Every frame and every batch whose checksum holds is found, behind damage too
(`batch_search`). Of each stream the new log gets everything up to its first hole, numbered as before, in new LSNs;
what lies behind a hole goes to `salvaged/<stream id, hex>.jsonl`. Deleted streams stay deleted: of them only the
tombstone is copied. In memory is a number or two for each stream, and one batch.
"""

from __future__ import annotations

import itertools
import posixpath
import uuid
import zlib
from collections.abc import Callable

from stepstore.errors import CorruptLog, InvalidInput, KeyDestroyed, RecoveryFailed, StepwellError, Unavailable
from stepstore.log import frame as fr
from stepstore.log.batch_codec import FLAG_ENCRYPTED, BatchCodec, Compression, DecodeFailed
from stepstore.log.batch_search import batches_of
from stepstore.log.files import FileSystem, OsFileSystem
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, FLAG_SNAPSHOT, FLAG_TOMBSTONE, KIND_FLAGS, Batch
from stepstore.log.frame_search import find_frames
from stepstore.log.indexed_batch import CODED
from stepstore.log.key_ring import KeyRing
from stepstore.log.lock_probe import is_locked
from stepstore.log.names import KEYS, QUARANTINE, SALVAGED
from stepstore.log.new_log import NewLog
from stepstore.log.open_files import OpenFiles
from stepstore.log.opening import LogOptions
from stepstore.log.problems import StreamName
from stepstore.log.records import Record
from stepstore.log.salvage_findings import FoundBatch, Lost
from stepstore.log.salvage_listing import list_sources
from stepstore.log.salvage_losses import Losses
from stepstore.log.salvage_report import SalvageReport, write_report
from stepstore.log.salvage_source import Source
from stepstore.log.set_aside import Describe, SetAside
from stepstore.log.stream_reader import Position


def salvage_log(
    source: str,
    target: str,
    progress: Callable[[int, int], None] | None = None,
    *,
    files: FileSystem | None = None,
    options: LogOptions | None = None,
    describe: Describe | None = None,
    name: StreamName | None = None,
) -> SalvageReport:
    """Write a new log at `target`, which must be absent or empty, from what is sound in the one at `source`. Blocks.

    `progress(done, total)` is called with bytes; everything is read twice. `options`: how the new log is written; with
    a key provider, what is encrypted in the old log is encrypted with new keys in the new one, and without one it is
    set aside as it is, since it is tied to the old log. What is compressed is copied as it is. `describe` and `name`
    say what a payload means.
    Raises: `NotFound`, `InvalidInput` (a path, the key), `RecoveryFailed` (the source cannot be read at all),
    `Unavailable` (the key provider fails), `OSError` (the target cannot be written). What is left of a salvage that was
    cut off cannot be opened.
    """
    files = files or OsFileSystem()
    options = options or LogOptions()
    _check_target(files, source, target)
    reading = OpenFiles(files)
    keys: KeyRing | None = None
    try:
        found = list_sources(files, source, reading)
        if options.key_provider is not None and found.log_uuid is not None:
            try:
                owner = uuid.UUID(found.log_uuid)
                keys = KeyRing.open(files, source, owner, options.key_provider, read_only=True)
            except CorruptLog as error:
                found.notes.append(f"{error} What is encrypted is set aside.")
        salvage = _Salvage(files, source, target, found.segments, progress, BatchCodec(Compression(), keys), describe)
        salvage.strict_about_keys = keys is not None
        salvage.report.source_log = found.log_uuid
        salvage.report.notes += found.notes
        return salvage.run(options, name)
    finally:
        if keys is not None:
            keys.close()
        reading.close()


def _check_target(files: FileSystem, source: str, target: str) -> None:
    inside = posixpath.normpath(target) + "/"
    if inside.startswith(posixpath.normpath(source) + "/"):
        raise InvalidInput(
            f"target: {target!r} lies inside {source!r}, which is not to be changed. Name another place."
        )
    try:
        at = files.stat(target)
        if at is not None and (not at.is_directory or files.list_names(target)):
            raise InvalidInput(f"target: {target!r} exists and is not an empty directory. Name a new one.")
    except OSError as error:
        raise RecoveryFailed.from_os_error("look into", error, file=target) from error


class _Salvage:
    """One run."""

    def __init__(
        self,
        files: FileSystem,
        source: str,
        target: str,
        segments: list[Source],
        progress: Callable[[int, int], None] | None,
        codec: BatchCodec,
        describe: Describe | None,
    ):
        self.files, self.source, self.target, self.segments = files, source, target, segments
        self.codec, self.describe = codec, describe
        self.strict_about_keys = False
        self.report = SalvageReport(source=source, target=target, segments=len(segments))
        self.report.bytes_read = sum(segment.size for segment in segments)
        self._progress, self._done = progress, 0
        self._deleted: set[bytes] = set()
        self._buried: set[bytes] = set()
        self._positions: dict[bytes, tuple[int, int]] = {}  # last seq in the new log, and its LSN in the old one
        seqs = sorted(segment.seqs for segment in segments)
        # Where two files stand for one segment, what is lost in one may be in the other.
        self._overlap = any(before[1] >= after[0] for before, after in itertools.pairwise(seqs))
        self._losses = Losses(self.report, self._positions, self._deleted)

    def run(self, options: LogOptions, name: StreamName | None) -> SalvageReport:
        self._note_surroundings()
        for segment in self.segments:
            find_frames(segment, self._deleted, self._read)
            self.report.notes += segment.notes
        self._log = NewLog(self.files, self.target, options)
        try:
            folder = posixpath.join(self.target, SALVAGED)
            self.files.make_directory(folder)
            self.files.sync_directory(self.target)
            self._aside = SetAside(self.files, folder, self.describe)
            self._copy()
            self._aside.close()
            self._log.flush()
            self._losses.judge_streams(lambda stream: self._name(stream, name))
            report = self.report
            report.target_log = self._log.log_uuid
            report.kept_records = self._log.records - len(self._buried)
            report.kept_streams = len(self._positions)
            report.behind_records, report.deleted_streams = self._aside.records, len(self._deleted)
            kept = ((stream, last_seq) for stream, (last_seq, _lsn) in self._positions.items())
            write_report(self.files, folder, report, kept)
            self._log.finish()
            return report
        finally:
            self._log.release()

    def _read(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, 2 * self.report.bytes_read)

    def _note_surroundings(self) -> None:
        notes = self.report.notes
        try:
            if is_locked(self.files, self.source):
                notes.append("a process had the log open; what it was writing meanwhile may be missing. Stop it first.")
            for name, text in (
                (QUARANTINE, "what earlier openings cut off was not looked at; keep it with the old log"),
                (KEYS, "the keys belong to the old log and were not copied"),
            ):
                folder = posixpath.join(self.source, name)
                if self.files.stat(folder) is not None and self.files.list_names(folder):
                    notes.append(f"{folder}: {text}")
        except OSError as error:
            raise RecoveryFailed.from_os_error("look into", error, file=self.source) from error

    # ---- copying -----------------------------------------------------------------------------------------------------

    def _copy(self) -> None:
        end_seq = end_lsn = 0
        for segment in self.segments:
            first_seq, last_seq = segment.seqs
            if first_seq > end_seq + 1 or segment.first_lsn > end_lsn + 1:
                what = _missing_segments(end_seq + 1, first_seq - 1)
                parts = None if segment.first_lsn > end_lsn + 1 else ()
                self._losses.note_lost(Lost(self.source, 0, 0, end_lsn + 1, segment.first_lsn - 1, parts, what))
            end_seq = max(end_seq, last_seq)
            for item in batches_of(segment, self._read):
                if isinstance(item, Lost):
                    self._losses.note_lost(item)
                    continue
                if self._overlap:
                    self._losses.note_found(item.first_lsn, item.first_lsn + len(item.lengths) - 1)
                self._take(item)
            end_lsn = max(end_lsn, segment.last_lsn, segment.first_lsn - 1)
        for stream in sorted(self._deleted - self._buried):
            # What the tombstone said is lost, but not that the stream was deleted: its id is not to be used again.
            self._buried.add(stream)
            self._log.add(Batch(stream, 1, [b""], FLAG_CLOSES | FLAG_TOMBSTONE))

    def _take(self, batch: FoundBatch) -> None:
        stream = batch.stream
        kind = batch.flags & KIND_FLAGS
        payloads, copyable = self._open_up(batch)
        if stream in self._deleted:
            if kind == FLAG_TOMBSTONE and copyable and stream not in self._buried:
                self._buried.add(stream)
                self._append(batch, batch.first_seq, payloads)
            return
        last_seq, last_lsn = self._positions.get(stream, (0, 0))
        if kind == FLAG_SNAPSHOT:
            if batch.first_seq <= last_seq and copyable:
                self._append(batch, batch.first_seq, payloads)
            elif batch.first_seq > last_seq:
                self._set_aside(batch, payloads)
            return
        if not copyable:
            self._losses.note_fault(stream, "it is encrypted, and its key is not there")
            self._set_aside(batch, payloads)
        elif batch.first_seq > last_seq + 1:
            self._losses.attribute(stream, last_seq + 1, batch.first_seq - 1, last_lsn, batch.first_lsn)
            self._set_aside(batch, payloads)
        elif batch.first_seq <= last_seq:
            self._take_again(batch, payloads, last_seq)
        else:
            self._append(batch, batch.first_seq, payloads)
            self._positions[stream] = batch.last_seq, batch.first_lsn + len(batch.lengths) - 1

    def _open_up(self, batch: FoundBatch) -> tuple[list[bytes] | None, bool]:
        """The records of a batch, None where they cannot be told; and whether it can be copied. An encrypted one is
        tied to its log: in another its bytes mean nothing."""
        if not batch.flags & CODED:
            return batch.payloads(), True
        how = batch.flags & 0xFFFF
        try:
            data = self.codec.decode(batch.stream, batch.first_seq, how, batch.stored, batch.lengths)
        except (DecodeFailed, KeyDestroyed, CorruptLog):
            return None, not how & FLAG_ENCRYPTED
        except (Unavailable, InvalidInput):  # no key provider, a wrong one, or a library is missing
            if self.strict_about_keys:
                raise
            return None, not how & FLAG_ENCRYPTED
        return batch._replace(stored=data).payloads(), True

    def _append(self, batch: FoundBatch, first_seq: int, payloads: list[bytes] | None) -> None:
        """Have the new log store a batch, or the end of it from `first_seq` on."""
        skipped = first_seq - batch.first_seq
        flags = batch.flags & (KIND_FLAGS | FLAG_OPENS | FLAG_CLOSES)
        how = batch.flags & CODED
        if payloads is not None and (skipped or not how or how & FLAG_ENCRYPTED):
            self._log.add(Batch(batch.stream, first_seq, payloads[skipped:], flags))
        else:
            lengths = [bytes(length) for length in batch.lengths]  # only how long they are counts
            self._log.add(Batch(batch.stream, first_seq, lengths, flags), (batch.stored, how))

    def _set_aside(self, batch: FoundBatch, payloads: list[bytes] | None) -> None:
        self._aside.add(batch, payloads)
        if batch.flags & KIND_FLAGS != FLAG_SNAPSHOT:
            self._losses.note_behind_a_hole(batch)

    def _take_again(self, batch: FoundBatch, payloads: list[bytes] | None, last_seq: int) -> None:
        """A batch that begins with records the new log has: equal ones are counted (row 10), different ones, and those
        that cannot be compared, are set aside (row 11), and what comes behind equal ones is new."""
        self._log.flush()
        if payloads is None:
            stored = self._log.index.batches_after(batch.stream, batch.first_seq - 1)
            same = [one for one in stored if (one.first_seq, one.last_seq) == (batch.first_seq, batch.last_seq)]
            if same and same[0].crc == zlib.crc32(batch.stored):
                self.report.duplicates += len(batch.lengths)
            else:
                self._forked(batch, payloads, compared=bool(same))
            return
        common = min(last_seq, batch.last_seq) - batch.first_seq + 1
        known = self._read_again(batch.stream, batch.first_seq, common)
        if known != payloads[:common]:
            self._forked(batch, payloads, compared=known is not None)
            return
        self.report.duplicates += common
        if batch.last_seq > last_seq:
            self._append(batch, last_seq + 1, payloads)
            self._positions[batch.stream] = batch.last_seq, batch.first_lsn + len(batch.lengths) - 1

    def _read_again(self, stream: bytes, first_seq: int, count: int) -> list[bytes] | None:
        """Records of the new log; None where they are stored in a way that is not known here."""
        found: list[Record] = []
        position = Position(first_seq - 1)
        try:
            while len(found) < count:
                some, position = self._log.reader.read_slice(stream, position, 2**63, count, fr.MAX_BATCH_BYTES)
                found += some
        except StepwellError:
            return None
        return [record.payload for record in found[:count]]

    def _forked(self, batch: FoundBatch, payloads: list[bytes] | None, *, compared: bool) -> None:
        numbers = f"{batch.first_seq} to {batch.last_seq}"
        how = "differ" if compared else "cannot be compared, for want of a library or a key"
        why = f"records {numbers} are there twice and {how}; the new log has those found first"
        self._losses.note_fault(batch.stream, why)
        self._set_aside(batch, payloads)

    def _name(self, stream: bytes, name: StreamName | None) -> str:
        first = None if name is None else self._read_again(stream, 1, 1)
        return "" if name is None or not first else name(first[0]) or ""


def _missing_segments(first: int, last: int) -> str:
    if first > last:
        return "records are missing"
    return f"segment {first} is missing" if first == last else f"segments {first} to {last} are missing"
