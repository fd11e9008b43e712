"""The steps of episodes as a Parquet table, for tools that read columns. Needs pyarrow (extra `stepwell[parquet]`).

One row per step, with what is the same for all steps of its episode beside it; an episode without steps has one row
whose `seq` is null. What has no fixed shape (parameters, results, metadata) is JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import IO, Any

from stepwell.cli.output import CommandFailed
from stepwell.model.episode import Episode
from stepwell.model.outcome import outcome_kind
from stepwell.model.step import EpisodeStep, StepSuccess

ROWS_AT_ONCE = 10_000
"""Rows of one group of the file; so many are held in memory, or as many as make ROW_GROUP_BYTES of text."""
ROW_GROUP_BYTES = 16 * 1024 * 1024


class StepTable:
    """A table that is being written. Raises on entering: `CommandFailed` if pyarrow is not there."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._rows: list[dict[str, Any]] = []
        self._waiting = 0

    def __enter__(self) -> StepTable:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise CommandFailed(f"Parquet needs pyarrow: pip install 'stepwell[parquet]' ({error})") from error
        self._pyarrow = pyarrow
        self._schema = _schema(pyarrow)
        self._writer = pyarrow.parquet.ParquetWriter(self._file, self._schema, compression="zstd")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def add(self, episode: Episode) -> int:
        """Take in an episode; gives the size of its text. Blocks now and then."""
        added = 0
        common = _of_episode(episode)
        steps: Sequence[EpisodeStep | None] = episode.steps or [None]
        for step in steps:
            row = {**common, **_of_step(step)}
            size = sum(len(value) for value in row.values() if isinstance(value, str))
            self._rows.append(row)
            self._waiting += size
            added += size
            if len(self._rows) >= ROWS_AT_ONCE or self._waiting >= ROW_GROUP_BYTES:
                self._flush()
        return added

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._pyarrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()
        self._waiting = 0


def _schema(pyarrow: Any) -> Any:
    text, time = pyarrow.string(), pyarrow.timestamp("us", tz="UTC")
    return pyarrow.schema(
        [
            ("episode_id", text),
            ("task", text),
            ("task_type", text),
            ("agent", text),
            ("domain", text),
            ("language", text),
            ("framework", text),
            ("complexity", text),
            ("tags", pyarrow.list_(text)),
            ("parent", text),
            ("thread", text),
            ("started", time),
            ("ended", time),
            ("outcome", text),
            ("episode_reward", pyarrow.float64()),
            ("episode_metadata", text),
            ("seq", pyarrow.int64()),
            ("step_number", pyarrow.int64()),
            ("time", time),
            ("tool", text),
            ("action", text),
            ("parameters", text),
            ("status", text),
            ("result", text),
            ("latency_ms", pyarrow.float64()),
            ("tokens_used", pyarrow.int64()),
            ("reward", pyarrow.float64()),
            ("thought", text),
            ("metadata", text),
        ]
    )


def _of_episode(episode: Episode) -> dict[str, Any]:
    context = episode.context
    return {
        "episode_id": episode.episode_id,
        "task": episode.task_description,
        "task_type": episode.task_type,
        "agent": episode.agent,
        "domain": context.domain,
        "language": context.language,
        "framework": context.framework,
        "complexity": context.complexity,
        "tags": list(context.tags),
        "parent": episode.parent,
        "thread": episode.thread,
        "started": episode.start_time,
        "ended": episode.end_time,
        "outcome": None if episode.outcome is None else outcome_kind(episode.outcome),
        "episode_reward": None if episode.reward is None else episode.reward.total,
        "episode_metadata": _json(episode.metadata),
    }


def _of_step(step: EpisodeStep | None) -> dict[str, Any]:
    if step is None:
        return {}
    status = result = None
    if isinstance(step.result, StepSuccess):
        output = step.result.output
        status, result = "success", output if isinstance(output, str) else _json(output)
    elif step.result is not None:
        status, result = type(step.result).__name__.removeprefix("Step").lower(), step.result.message
    return {
        "seq": step.seq,
        "step_number": step.step_number,
        "time": step.timestamp,
        "tool": step.tool,
        "action": step.action,
        "parameters": _json(step.parameters),
        "status": status,
        "result": result,
        "latency_ms": step.latency_ms,
        "tokens_used": step.tokens_used,
        "reward": step.reward,
        "thought": step.thought,
        "metadata": _json(step.metadata),
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
