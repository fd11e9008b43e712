"""The eight promises of the log format, broken one at a time."""

from __future__ import annotations

from tests.mutants.mutant import mutant, several

CBOR = "tests/stepstore/test_log_cbor.py"
WRITER = "tests/stepstore/test_log_writer.py"
FAILURES = "tests/stepstore/test_log_writer_failures.py"
ROWS = "tests/stepstore/test_log_recovery_rows.py"
REPAIR = "tests/stepstore/test_log_repair.py"
DIRECTORY = "tests/stepstore/test_log_directory.py"
FOREIGN = "tests/stepstore/test_log_foreign_frames.py"
DURABILITY = "tests/journal/test_journal_durability.py"
JOURNAL = "tests/journal/test_journal_contract.py"

MUTANTS = (
    # ---- promise 1: every byte is well-formed CBOR -------------------------------------------------------------------
    several(
        "promise 1: a trailer is a CBOR byte string",
        [
            ("footer.py", "_TRAILER.pack(_BYTES8, TRAILER_BYTES - 2,", "_TRAILER.pack(0xFF, 0,"),
            ("footer.py", "!= (_BYTES8, TRAILER_BYTES - 2, _TRAILER_MAGIC)", "!= (0xFF, 0, _TRAILER_MAGIC)"),
        ],
        CBOR,
        "",
        short=True,
    ),
    mutant(
        "promise 1: the padding of a segment header is a CBOR byte string",
        "segment_header.py",
        'struct.pack(">BH", _BYTES16, _PADDING)',
        'struct.pack(">BH", 0, _PADDING)',
        CBOR,
        "",
    ),
    mutant(
        "promise 1: a segment begins with the self-described tag",
        "segment_header.py",
        '_SELF_DESCRIBED = b"\\xd9\\xd9\\xf7"',
        '_SELF_DESCRIBED = b"\\xd9\\xd9\\xf6"',
        CBOR,
        "",
    ),
    mutant(
        "promise 1: directory and payloads are CBOR byte strings",
        "frame.py",
        "= 0x8E, 0x18, 0x1A, 0x1B, 0x5A",
        "= 0x8E, 0x18, 0x1A, 0x1B, 0x00",
        CBOR,
        "",
    ),
    several(
        "promise 1: a sidecar is two CBOR byte strings",
        [("sealing.py", '_SIDECAR_HEAD = b"\\xd9\\xd9\\xf7\\x5a"', '_SIDECAR_HEAD = b"\\xd9\\xd9\\xf7\\x00"')],
        CBOR,
        "sidecar",
    ),
    # ---- promise 2: one write and one sync per frame -----------------------------------------------------------------
    mutant(
        "promise 2: what is acknowledged was synced",
        "segment.py",
        "        write_all(self._file, frame.at, frame.data)\n        self._file.datasync()\n",
        "        write_all(self._file, frame.at, frame.data)\n",
        WRITER,
        "at_the_moment",
        short=True,
    ),
    mutant(
        "promise 2: a frame is one write",
        "segment.py",
        "        write_all(self._file, frame.at, frame.data)\n",
        "        write_all(self._file, frame.at, frame.data[:90])\n"
        "        write_all(self._file, frame.at + 90, frame.data[90:])\n",
        WRITER,
        "a_lone_batch",
    ),
    mutant(
        "promise 2: a frame is synced once",
        "segment.py",
        "        write_all(self._file, frame.at, frame.data)\n        self._file.datasync()\n",
        "        write_all(self._file, frame.at, frame.data)\n        self._file.datasync()\n"
        "        self._file.datasync()\n",
        WRITER,
        "a_lone_batch",
    ),
    mutant(
        "promise 2: a group takes what queued meanwhile",
        "commit_queue.py",
        "while self._queue and size + self._queue[0].cost <= MAX_GROUP_BYTES:",
        "while False:",
        WRITER,
        "what_queues_meanwhile",
    ),
    mutant(
        "promise 2: a group is bounded",
        "commit_queue.py",
        "while self._queue and size + self._queue[0].cost <= MAX_GROUP_BYTES:",
        "while self._queue:",
        WRITER,
        "a_group_takes_no_more",
    ),
    mutant(
        "promise 2: a short write without an error is continued",
        "files.py",
        "        view = view[taken:]",
        "        view = view[len(view) :]",
        "tests/stepstore/test_log_files.py",
        "short_write",
    ),
    # ---- promise 3: what tells a tear from rot -----------------------------------------------------------------------
    mutant(
        "promise 3: a frame says up to which LSN its file is durable",
        "segment.py",
        "            durable_lsn=self._durable_lsn,\n            segment_tag=self.header.segment_tag,\n"
        "            prev_crc=self._chain,\n            encode=encode,",
        "            durable_lsn=self.header.first_lsn - 1,\n            segment_tag=self.header.segment_tag,\n"
        "            prev_crc=self._chain,\n            encode=encode,",
        ROWS,
        "row_02_a_later_frame",
        short=True,
    ),
    mutant(
        "promise 3: a mark and a seal say up to which LSN their file is durable",
        "segment.py",
        "durable_lsn=behind.end_lsn,",
        "durable_lsn=0,",
        ROWS,
        "row_02_a_mark or row_02_what_seals",
    ),
    mutant(
        "promise 3: the writer counts the pieces that it wrote as zeros",
        "frame.py",
        "*(_U32, crc32(directory), _U32, body_crc, _U32, count_zero_pieces(frame, offset), _U32, 0),",
        "*(_U32, crc32(directory), _U32, body_crc, _U32, 0, _U32, 0),",
        ROWS,
        "row_05_every_flipped_bit_beside_nul_runs",
    ),
    mutant(
        "promise 3: a header never lies across a sector boundary",
        "frame.py",
        "    if offset % SECTOR + HEADER_BYTES > SECTOR:\n        return (offset // SECTOR + 1) * SECTOR\n",
        "",
        "tests/stepstore",
        "sector or pad or header_position or cross",
    ),
    mutant(
        "promise 3: a new segment names where the one before ends",
        "segment.py",
        "prev_end_offset=cut.end_offset,",
        "prev_end_offset=0,",
        WRITER,
        "rotation_makes_a_chain",
    ),
    mutant(
        "promise 3: a new segment names the chain it continues",
        "segment.py",
        "prev_chain=cut.chain,",
        "prev_chain=0,",
        WRITER,
        "rotation_makes_a_chain",
    ),
    # ---- promise 4: no file of another incarnation is appended to ----------------------------------------------------
    mutant(
        "promise 4: the first append after an opening goes to a fresh segment",
        "active_segment.py",
        "            self.go_on_in(await self._worker.run(self._sequence.begin))",
        "            newest = self._log.index.segments[-1]\n"
        "            file = self._log.files.open(newest.path)\n"
        "            segment = Segment(file, newest.path, newest.header, newest.header_crc, b'', 1 << 20)\n"
        "            segment._offset, segment._chain = newest.end_offset, newest.chain\n"
        "            segment._durable_lsn = newest.end_lsn\n"
        "            self._log.segment = segment",
        REPAIR,
        "no_file_of_an_earlier_incarnation",
        short=True,
    ),
    mutant(
        "promise 4: every opening that writes begins a new epoch",
        "segment.py",
        "self._epoch + (1 if new_epoch else 0)",
        "self._epoch",
        REPAIR,
        "no_file_of_an_earlier_incarnation",
    ),
    mutant(
        "promise 4: epochs go on where the newest segment was",
        "opening.py",
        "epoch=0 if newest is None else newest.header.epoch,",
        "epoch=0,",
        REPAIR,
        "no_file_of_an_earlier_incarnation",
    ),
    mutant(
        "promise 4: a cut is named by a fresh segment before it is made",
        "repair.py",
        "                self._successor = self._sequence.begin()",
        "                pass",
        REPAIR,
        "uninterrupted_repair",
    ),
    mutant(
        "promise 4: a name in .seg exists only with a durable header",
        "segment.py",
        "            write_all(file, 0, data)\n            file.datasync()\n            path =",
        "            write_all(file, 0, data)\n            path =",
        DIRECTORY,
        "a_power_cut_at_any_call_of_a_first_open",
    ),
    mutant(
        "promise 4: the name of a segment is durable before anything is written there",
        "segment.py",
        "                self.files.sync_directory(self.directory)\n",
        "                pass\n",
        WRITER,
        "at_the_moment",
    ),
    mutant(
        "promise 4: the lock is looked at before each new segment",
        "segment.py",
        "        self._lock.check()\n",
        "",
        DIRECTORY,
        "fenced",
    ),
    # ---- promise 5: what was recovered is written again --------------------------------------------------------------
    mutant(
        "promise 5: unproven frames are written and not only synced",
        "repair.py",
        "        write_all(file, offset, data)\n",
        "        pass\n",
        REPAIR,
        "written_again or page_cache",
        short=True,
    ),
    mutant(
        "promise 5: and synced",
        "repair.py",
        "        write_all(file, offset, data)\n    file.datasync()\n",
        "        write_all(file, offset, data)\n",
        REPAIR,
        "written_again or page_cache",
    ),
    mutant(
        "promise 5: the directory is synced after them",
        "repair.py",
        "[-1].unproven:\n        files.sync_directory(directory)\n",
        "[-1].unproven:\n        pass\n",
        REPAIR,
        "before_anything_else",
    ),
    mutant(
        "promise 5: proven are only frames that a later one calls durable",
        "scan.py",
        "unproven = [item for item in unproven if item[2] > proven]",
        "unproven = []",
        FOREIGN,
        "no_later_one",
    ),
    mutant(
        "promise 5: what a later frame proves durable is left alone",
        "scan.py",
        "unproven = [item for item in unproven if item[2] > proven]",
        "pass",
        REPAIR,
        "written_again",
    ),
    mutant(
        "promise 5: frames that a successor proves durable are left alone",
        "recovery.py",
        "[] if successor is not None or header.generation else scan.unproven,",
        "scan.unproven,",
        REPAIR,
        "frames_of_older_files",
    ),
    mutant(
        "promise 5: the pages are dropped before they are written again",
        "repair.py",
        "    file.datasync()\n    _drop_pages(file)\n    for offset, data in pieces:\n        write_all",
        "    file.datasync()\n    for offset, data in pieces:\n        write_all",
        REPAIR,
        "failed_sync_left_in_the_cache",
        short=True,
    ),
    mutant(
        "promise 5: what was written again is read back",
        "repair.py",
        "        if _read_whole(file, offset, len(data)) != data:",
        "        if False:",
        REPAIR,
        "not_there_when_it_is_read_back",
    ),
    mutant(
        "promise 5: what cannot be written again is not served",
        "repair.py",
        "            _write_again(files, state)\n",
        "            try:\n                _write_again(files, state)\n"
        "            except OSError:\n                pass\n",
        REPAIR,
        "recovered_frames_that_cannot_be_written",
    ),
    mutant(
        "promise 5: a short read of what is written again is an error",
        "repair.py",
        "    if len(data) != length:",
        "    if False:",
        REPAIR,
        "row_18_a_short_read",
    ),
    # ---- promise 6: nothing is retried in a file that failed ---------------------------------------------------------
    mutant(
        "promise 6: a group whose write failed is not written again to that file",
        "group_commit.py",
        "            except OSError as error:\n                await self._errors.leave_segment(group, error)\n"
        "                return\n",
        "            except OSError:\n                await self._worker.run(segment.write, frame)\n",
        FAILURES,
        "an_io_error_makes_the_group_unknown",
        short=True,
    ),
    mutant(
        "promise 6: the cut is the last acknowledged record and not the last written",
        "segment.py",
        "        write_all(self._file, frame.at, frame.data)\n        self._file.datasync()\n",
        "        write_all(self._file, frame.at, frame.data)\n        self.acknowledge(frame)\n"
        "        self._file.datasync()\n",
        FAILURES,
        "an_io_error_makes_the_group_unknown",
    ),
    mutant(
        "promise 6: what failed with an I/O error is unknown and not refused",
        "write_errors.py",
        'cause = OutcomeUnknown(f"writing to the medium failed ({error}); whether',
        'cause = LogFull(f"writing to the medium failed ({error}); whether',
        FAILURES,
        "an_io_error_makes_the_group_unknown",
    ),
    mutant(
        "promise 6: what continues a failed stream fails with it",
        "write_errors.py",
        "            self._queue.fail_with_dependents(group, cause)\n",
        "            self._queue.fail(group, cause)\n",
        FAILURES,
        "what_continues_a_failed_stream",
    ),
    mutant(
        "promise 6: the fresh segment begins a new epoch",
        "active_segment.py",
        "return self._sequence.begin(cut, preallocate=not no_room)",
        "return self._sequence.begin(cut, new_epoch=False, preallocate=not no_room)",
        FAILURES,
        "an_io_error_makes_the_group_unknown",
    ),
    mutant(
        "promise 6: without a fresh segment the log has failed",
        "write_errors.py",
        "            second.__context__ = error\n            self.fail(group, second)\n",
        "            self._queue.fail(group, OutcomeUnknown('?'))\n",
        FAILURES,
        "no_fresh_segment",
    ),
    mutant(
        'promise 6: a segment whose name may be durable or not is never "no room"',
        "segment.py",
        'raise OSError(errno.EIO, f"whether {path!r} exists',
        'raise OSError(error.errno, f"whether {path!r} exists',
        FAILURES,
        "a_rotation_that_fails_half_way",
    ),
    mutant(
        'promise 6: ENOSPC of a write is "full" and frees the reserve',
        "active_segment.py",
        "        if no_room and self._log.reserve is not None:\n            self._log.reserve.spend()\n",
        "",
        FAILURES,
        "reserve",
    ),
    mutant(
        "promise 6: ENOSPC of a write leaves the segment too",
        "group_commit.py",
        "            except OSError as error:\n                await self._errors.leave_segment(group, error)\n"
        "                return\n",
        "            except OSError as error:\n                if error.errno in NO_ROOM:\n"
        "                    await self._errors.no_segment(group, error)\n                    return\n"
        "                await self._errors.leave_segment(group, error)\n                return\n",
        FAILURES,
        "no_room_for_a_frame",
    ),
    mutant(
        "promise 6: keys whose append failed go to another file",
        "key_store.py",
        "if self._file is None or self.is_stale or ",
        "if self._file is None or ",
        "tests/stepstore/test_keys.py",
        "nothing_is_appended_to_a_file_after",
    ),
    # ---- promise 7: quarantine ---------------------------------------------------------------------------------------
    mutant(
        "promise 7: what is cut off is copied to quarantine first",
        "repair.py",
        "for state in recovered.segments if state.leftover_end is not None\n",
        "for state in recovered.segments if False\n",
        REPAIR,
        "uninterrupted_repair",
        short=True,
    ),
    mutant(
        "promise 7: the copy is durable before the cut",
        "repair.py",
        "        write_all(file, 0, content)\n        file.datasync()\n",
        "        write_all(file, 0, content)\n",
        REPAIR,
        "order_of_a_repair or power_cut",
    ),
    mutant(
        "promise 7: so is its name",
        "repair.py",
        "        file.close()\n    files.sync_directory(folder)\n    return name\n",
        "        file.close()\n    return name\n",
        REPAIR,
        "power_cut",
    ),
    mutant(
        "promise 7: and the directory it is in",
        "repair.py",
        "        files.make_directory(folder)\n        files.sync_directory(directory)\n",
        "        files.make_directory(folder)\n",
        REPAIR,
        "power_cut",
    ),
    mutant(
        "promise 7: an earlier copy does only if it is whole",
        "repair.py",
        "if file.size() != len(content) or file.read(0, len(content)) != content:",
        "if file.size() != len(content):",
        REPAIR,
        "an_earlier_copy",
    ),
    mutant(
        "promise 7: the copy reaches to the last byte that is not zero",
        "recovery.py",
        "None if leftover is None else leftover + 1,\n                [] if",
        "leftover,\n                [] if",
        REPAIR,
        "reaches_far",
    ),
    mutant(
        "promise 7: a short read of what goes to quarantine is an error",
        "repair.py",
        "if len(content) != size:",
        "if False:",
        REPAIR,
        "row_18_a_short_read",
    ),
    mutant(
        "promise 4: a repair that is repeated begins no second segment",
        "repair.py",
        "if recovered.torn and self._successor is None:",
        "if recovered.torn:",
        "tests/stepstore/test_log_full_opening.py",
        "begins_no_other_one",
    ),
    mutant(
        "promise 7: the file is cut only after the successor is durable",
        "repair.py",
        '            doing = "begin a segment in"\n',
        "            for state in recovered.segments:\n                if state.cut_to is not None:\n"
        "                    _truncate(files, state.segment.path, state.cut_to)\n",
        REPAIR,
        "order_of_a_repair",
    ),
    mutant(
        "promise 7: the cut is synced",
        "repair.py",
        "        file.truncate(size)\n        file.datasync()\n",
        "        file.truncate(size)\n",
        REPAIR,
        "order_of_a_repair",
    ),
    # ---- promise 8: followers see only what is durable ---------------------------------------------------------------
    mutant(
        "promise 8: records are indexed once they are durable and not before",
        "group_commit.py",
        "            began = time.perf_counter()\n            try:\n",
        "            self._log.index.add_frame(\n"
        "                frame.at, frame.end, frame.first_lsn, frame.last_lsn, frame.header_crc, frame.entries\n"
        "            )\n"
        "            began = time.perf_counter()\n            try:\n",
        DURABILITY,
        "",
    ),
    mutant(
        "promise 8: a follower waits for what is durable and not for what is written",
        "group_commit.py",
        "            began = time.perf_counter()\n            try:\n",
        "            self._log.index.add_frame(\n"
        "                frame.at, frame.end, frame.first_lsn, frame.last_lsn, frame.header_crc, frame.entries\n"
        "            )\n"
        "            self._log.index.add_frame = lambda *_: None  # type: ignore[method-assign]\n"
        "            self._watermark.lsn = frame.last_lsn\n"
        "            self._watermark.tell()\n"
        "            began = time.perf_counter()\n            try:\n",
        DURABILITY,
        "",
        short=True,
    ),
    mutant(
        "promise 8: a reader of a stream stops at what was durable when it was asked for",
        "storage/stepstore/journal/segment_log.py",
        "self._upto, self._must_catch_up = journal.durable_lsn, must_catch_up",
        "self._upto, self._must_catch_up = 2**63, must_catch_up",
        JOURNAL,
        "reader",
    ),
)
