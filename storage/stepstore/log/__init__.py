"""The segment log.

A log is a directory of *segments*. A segment is a CBOR sequence (RFC 8742): one 512-byte header item that begins with
the self-described-CBOR tag 55799, then *frames*, and nothing else but zero bytes, each of which is the CBOR integer 0.
Anybody with a CBOR library can read a log.

    segment  = header (512 bytes), *( zeros, frame ), zeros
    frame    = frame-header (an array of 14 fixed-width integers), directory (byte string), payloads (byte string)
    sealed   = header, *( zeros, frame ), footer frame, zeros, close frame, trailer (64 bytes); nothing follows

One frame holds one *commit group*: everything that was waiting when the previous group had reached the medium. It is
written with one `pwrite` and made durable with one `fdatasync`; only then is anything in it acknowledged. So a batch is
there as a whole or not at all.

Every record has an LSN (1, 2, 3 … over the whole log) and a `seq` in its stream. The directory of a frame says which
records of which stream lie where; the payloads are opaque to this package. Frames are chained: each names the CRC of
the header before it. `durable_lsn` in a frame header says how far the same file was known to be durable when the frame
was written, which is what tells a torn tail (a crash, expected) from rot (damage, refused); `recovery` holds the table
of verdicts.

No file that another incarnation wrote is ever appended to: opening leaves it as it was found, cut at its end, and the
first append begins a new segment whose header names that cut. A segment that is left is sealed: its footer holds an
index that is bisected where it lies, so that opening reads the trailers of a log and not its records. A segment that a
crash left unsealed gets the same index in a sidecar file. An index that is unsound costs time, not data.

General layout, in reading order:

- `segment_header`, `frame`, `footer`, `packed_table`: the structures on disk, as bytes.
- `files`: the file layer, real; `memory_files`: the same in memory, with a durable and a volatile image.
- `scan`: walks one segment and says where and how its chain of frames ends.
- `recovery`: judges what is found, by the decision table; changes nothing. `header_checks`, `seal_ends`, `continuity`,
  `tail_verdict`: the rows about headers, about segments with an index, about neighbours, about the newest tail.
  `index_building`: indexes from frames. `recovered`: what comes of it. `sealing`: finds and writes indexes.
- `manifest`, `listing`: which files are the log, once it was compacted.
- `repair`: carries out what recovery decided, in the order that survives a crash at any point.
- `live_index`, `sealed_index`: which records of which stream lie where in one segment, in memory or read from its
  footer; `index` puts the segments together (`indexed_segment`: one of them, `indexed_batch`: a batch in it,
  `open_streams`, `stream_listing`).
- `records`: what is read: a record, a batch of them, a gap. `stream_reader`: fetches those of one stream, by the index;
  `frame_reader`: those of all streams, frame by frame in log order (`read_ahead`: many small ones in one read).
  `stored_payloads`: decodes what a batch holds. `open_files`, `places`: what they read through, and together.
- `directory`, `names`: LOCK, FORMAT, names, the first open. `segment`: a segment being written. `reserve`, `forking`.
- `batch_codec`: compression and encryption of batches. `key_ring`: the keys of streams; `key_store`, `keys_file`: where
  they are kept, and the bytes of that; `key_provider`: what wraps them.
- `opening` puts these together; `refreshing` keeps a read-only opening up with the writer; `cursor` says how far a
  follower has come.
- `compaction`: rewrites segments without what is dead in them: `compaction_policy` says which, `compaction_input` is
  what it reads and `compaction_output` what it writes, `segment_replacement` makes that count. `dead_records` knows how
  much is dead; `purge` proves that nothing of deleted streams is left. `compaction_report`: what was done.
- `archive`: copies a log while it is written to; `restore`: makes a log of the copy. `archive_list`: which files it
  has, `archive_target`: where it is made, `archive_report`: what it holds; `copying`.
- `writer`: the one task that commits groups. Of its parts, `commit_queue` checks what is submitted and holds what waits
  (`submission`: one of them), `admission` says whether anything is taken, `group_commit` writes and acknowledges a
  group, `active_segment` is where to, `write_errors` what is done when that fails, `watermark` how far the log is
  durable. `writer_stats`, `latency`: what is counted, and how long commits took.
- `caretaker`: the task that seals, marks and tidies up behind the writer; `compactor`: the one that compacts, by itself
  and on request (`segment_rewriter`: one rewriting at a time; `purger`, `archiver`: what else is done on request);
  `scrubber`: the one that reads sealed segments again (`scrub`: one, block by block). `worker_thread`: where they make
  blocking calls. The tasks and their parts alone know Trio.
- `verify`: checks every byte of a log without touching it (`segment_check`: of one segment; `verify_report`,
  `lock_probe`). `survey`: what its indexes tell of it.
- `salvage`: writes a new log (`new_log`) from what is sound in the files of a damaged one (`salvage_listing`;
  `salvage_source`: one of them), sets aside what a hole cuts off (`set_aside`), and tells what is lost
  (`salvage_losses`, `salvage_report`). `frame_search`, `resync`: find frames across damage; `batch_search`: reads what
  is in them; `salvage_findings`: what that gives. `examine`, `problems`: what `verify` says of damage.
"""
