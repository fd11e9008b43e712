"""`python -m bench.peers.worker NAME`: one peer in a process of its own; a line of JSON asks, another answers."""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from bench.peers import needle
from bench.peers.load import Load, Meter, NoDelete, Peer
from bench.peers.names import WAYS
from bench.peers.shim import Syncs


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _go_on() -> None:
    pass


def _answer(peer: Peer, syncs: Syncs, request: dict[str, Any]) -> dict[str, Any]:
    path = Path(request["path"])
    if request["do"] == "read":
        began = time.perf_counter()
        seconds, found = peer.read(path, request["times"])
        return {"seconds": seconds, "found": found, "open_read_close": time.perf_counter() - began}
    if request["do"] == "delete":
        return _delete(peer, path)
    meter = Meter(syncs, _kill if request["do"] == "die" else _go_on)
    meter.laps = [] if request["do"] == "laps" else None
    load = Load(request["episodes"], request["steps"], request["size"], meter)
    syncs.delay(request["delay_ns"])
    gc.collect()
    try:
        groups = peer.ingest(path, load)
    finally:
        syncs.delay(0)
    return {
        "seconds": meter.seconds,
        "groups": groups,
        "syncs": meter.syncs if syncs.counted else None,
        "sync_seconds": meter.sync_seconds,
        "bytes": meter.bytes_written,
        "laps": meter.laps,
    }


def _delete(peer: Peer, path: Path) -> dict[str, Any]:
    before = needle.files_with(path)
    after: list[str] = []
    try:
        peer.delete(path, lambda: after.extend(needle.files_with(path)))
    except NoDelete as reason:
        return {"before": before, "no_delete": str(reason)}
    return {"before": before, "after": after, "closed": needle.files_with(path)}


def main(name: str) -> None:
    """Answer until the input ends. Whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    module, _, kind = WAYS[name].partition(":")
    try:
        peer: Peer = getattr(importlib.import_module(module), kind)()
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=answers, flush=True)
        return
    hello = {"batch": peer.batch, "durable": peer.durable, "least_steps": getattr(peer, "least_steps", 1)}
    hello["most_steps"] = getattr(peer, "most_steps", None)
    print(json.dumps(hello), file=answers, flush=True)
    syncs = Syncs()
    for line in sys.stdin:
        try:
            answer = _answer(peer, syncs, json.loads(line))
        except Exception as error:
            traceback.print_exc()
            answer = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
