"""How calls get from another thread or event loop to the Trio thread of a memory, and back.

General layout: `crossing` (the queue over which calls go, with one wake for many), `hot` (the calls that
need not wait), `pulling` (many items at once), `host` (the memory, in a task of the Trio thread), `memory_thread` (that
thread). The calls of the two doors are made from those of `Memory` by `tools/make_doors.py`.

`stepwell.sync` and `stepwell.aio` stand on it; they differ only in how their callers wait.
"""
