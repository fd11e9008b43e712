"""The segment log.

A log is a directory of *segments*. A segment is a CBOR sequence (RFC 8742): one 512-byte header item that begins with
the self-described-CBOR tag 55799, then *frames*, and nothing else but zero bytes, each of which is the CBOR integer 0.
Anybody with a CBOR library can read a log.

    segment  = header (512 bytes), *( zeros, frame ), zeros
    frame    = frame-header (an array of 14 fixed-width integers), directory (byte string), payloads (byte string)

One frame holds one *commit group*: everything that was waiting when the previous group had reached the medium. It is
written with one `pwrite` and made durable with one `fdatasync`; only then is anything in it acknowledged. So a batch is
there as a whole or not at all.

Every record has an LSN (1, 2, 3 … over the whole log) and a `seq` in its stream. The directory of a frame says which
records of which stream lie where; the payloads are opaque to this package. Frames are chained: each names the CRC of
the header before it. `durable_lsn` in a frame header says how far the same file was known to be durable when the frame
was written, which is what tells a torn tail (a crash, expected) from rot (damage, refused); `recovery` holds the table
of verdicts.

No file that another incarnation wrote is ever appended to: opening leaves it as it was found, cut at its end, and the
first append begins a new segment whose header names that cut.

General layout, in reading order:

- `segment_header`, `frame`: the two structures on disk, as bytes.
- `files`: the file layer, real; `memory_files`: the same in memory, with a durable and a volatile image.
- `scan`: walks one segment and says where and how its chain of frames ends.
- `recovery`: judges what the scan found, by the decision table; changes nothing.
- `repair`: carries out what recovery decided, in the order that survives a crash at any point.
- `index`: which records of which stream lie where. `reading`: fetches them.
- `directory`: LOCK, FORMAT, names, the first open. `segment`: a segment being written.
- `opening`: puts these together. `writer`: the one task that commits groups; `submission`: what it is given.
- `caretaker`, `scrubber`: the tasks behind the writer (with `writer` and `submission` the only modules that know Trio).
  `scrub`: reads one segment again, block by block.
- `verify`: checks every byte of a log without touching it.
- `salvage`: writes a new log (`new_log`) from what is sound in a damaged one (`salvage_source`, which follows frames
  across damage by `resync`), sets aside what a hole cuts off (`set_aside`), and lists what is lost (`salvage_report`).
"""
