"""The step that is measured: about 220 bytes on disk, like a small tool call."""

from __future__ import annotations

import time

import cbor2

from stepwell import ExecutionStep, StepSuccess

OUTPUT = "1024 bytes read; 12 sections found; the key is in the third one; nothing unusual was seen in this part of it"


def step(episode: int, number: int) -> ExecutionStep:
    """A new step, as an agent makes one for each call."""
    return ExecutionStep(
        tool="file_reader",
        action="Read config.toml and look for the section of the key",
        parameters={"path": f"src/module_{episode}.py", "line": number},
        result=StepSuccess(OUTPUT),
        latency_ms=5,
    )


def encoded(item: ExecutionStep) -> bytes:
    """The same step encoded with cbor2 in the form the log has, by nothing but cbor2."""
    output = item.result.output  # type: ignore[union-attr]
    data = [item.tool, item.action, item.parameters, [0, output], item.latency_ms]
    return cbor2.dumps([1, "step", time.time_ns(), data, None])
