"""What the tests of the command line share: running it, and events of the neutral form."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import stepstore
import stepwell
from stepwell.cli.app import cli

JsonObject = dict[str, Any]

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
"""Real agent data; not part of the project."""

EVENT_FILES = (
    "tau-airline",
    "intercode-sql",
    "intercode-bash",
    "intercode-python",
    "reflexion-hotpotqa",
    "swe-agent",
    "toolbench-sample",
)


def real_file(name: str) -> Path:
    """A file of the real data; skips the test where there is none."""
    path = DATA / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"the real agent data is not here: no ../shared/data/{path.name} beside the repository")
    return path


def run(*arguments: str | Path, env: dict[str, str | None] | None = None) -> Result:
    """Run a command in this process; an exception that it should have reported fails the test."""
    result = CliRunner(env={"COLUMNS": None, **(env or {})}).invoke(
        cli, [str(argument) for argument in arguments], prog_name="stepwell"
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.stderr
    return result


def run_json(*arguments: str | Path, code: int = 0) -> Any:
    """Run a command with --json and give what it printed; it must exit with `code`."""
    result = run(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def child_environment() -> dict[str, str]:
    """An environment in which another interpreter finds the packages under test."""
    roots = [str(Path(package.__path__[0]).parent) for package in (stepwell, stepstore)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}


def write_lines(path: Path, events: Iterable[JsonObject | str]) -> Path:
    """A file with one event per line; a text is written as it is. Compressed if its name says so."""
    lines = [event if isinstance(event, str) else json.dumps(event) for event in events]
    data = "".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read_lines(path: Path) -> list[JsonObject]:
    """The events of a file."""
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return [json.loads(line) for line in text.splitlines()]


def by_episode(events: Iterable[JsonObject]) -> dict[str, list[JsonObject]]:
    """Events in order, grouped by episode."""
    episodes: dict[str, list[JsonObject]] = {}
    for event in events:
        episodes.setdefault(event["episode"], []).append(event)
    return episodes


def exported(directory: Path, to: Path) -> list[JsonObject]:
    """Everything in a memory, through `stepwell export`."""
    result = run("export", to, "--dir", directory)
    assert result.exit_code == 0, result.output
    return read_lines(to)


def start(episode: str = "e1", **fields: Any) -> JsonObject:
    """A start event."""
    event = {
        "event": "start",
        "episode": episode,
        "source": "hand-made",
        "task_id": "task-1",
        "task": "Find the answer",
        "domain": "testing",
        "tags": ["one", "two"],
        "agent": "tester",
        "trial": 0,
    }
    return event | fields


def step(episode: str = "e1", number: int = 1, **fields: Any) -> JsonObject:
    """A step event."""
    event = {
        "event": "step",
        "episode": episode,
        "step_number": number,
        "tool": "search",
        "action": "look",
        "parameters": {"query": f"number {number}"},
        "result": {"success": "found"},
        "latency_ms": None,
        "reward": None,
    }
    return event | fields


def complete(episode: str = "e1", **fields: Any) -> JsonObject:
    """A complete event."""
    event = {
        "event": "complete",
        "episode": episode,
        "outcome": "success",
        "reward": 1.0,
        "steps": 1,
        "outcome_label": "gold",
        "meta": {"turns": 3},
    }
    return event | fields


def episode_events(episode: str, steps: int, *, ended: bool = True) -> list[JsonObject]:
    """The events of one whole episode."""
    events = [start(episode), *(step(episode, number) for number in range(1, steps + 1))]
    return [*events, complete(episode, steps=steps)] if ended else events
