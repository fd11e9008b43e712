"""Spans around public calls: what they say, that they change nothing, and that without them there is nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stepwell import ExecutionStep, Memory, NotFound, StepSuccess, Success, open_memory
from stepwell.tracing import traced
from tests.stepwell.cli.cli_support import child_environment


class Spans:
    """Where spans end up."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def of(self, memory: Memory) -> Memory:
        return traced(memory, self.provider)

    @property
    def ended(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def names(self) -> list[str]:
        return [span.name for span in self.ended]


@pytest.fixture
def spans() -> Spans:
    return Spans()


async def test_awaited_calls_are_spans_that_name_their_episode(spans: Spans) -> None:
    async with open_memory(":memory:") as plain:
        memory = spans.of(plain)
        handle = await memory.start_episode("a task", episode_id="e")
        receipt = await handle.log_step(ExecutionStep("tool", "act", result=StepSuccess("secret")))
        await handle.complete(Success())
        await memory.get_episode("e")
        assert memory.handle("e").id == "e"
        assert memory.stats().records == 3
        assert spans.names() == [
            f"stepwell.{name}" for name in ("start_episode", "log_step", "complete", "get_episode")
        ]
        assert all((span.attributes or {})["stepwell.episode.id"] == "e" for span in spans.ended)
        assert (spans.ended[1].attributes or {})["stepwell.seq"] == receipt.seq == 2
        assert "secret" not in "".join(span.to_json() for span in spans.ended)


async def test_a_run_scope_is_the_parent_of_what_is_done_in_it(spans: Spans) -> None:
    async with open_memory(":memory:") as plain:
        memory = spans.of(plain)
        async with memory.episode("a task", episode_id="e") as episode:
            await episode.log_step(ExecutionStep("tool", "act"))
            episode.succeed("done")
        assert (await plain.get_episode("e")).outcome == Success("done")
        step, scope = spans.ended
        assert (step.name, scope.name) == ("stepwell.log_step", "stepwell.episode")
        assert step.parent is not None
        assert scope.context is not None
        assert step.parent.span_id == scope.context.span_id
        async with memory.atomic() as tx:
            tx.log_step((await plain.start_episode("other")).id, ExecutionStep("tool", "act"))
        assert spans.names()[2:] == ["stepwell.atomic"]


async def test_what_is_raised_leaves_unchanged_and_is_told(spans: Spans) -> None:
    async with open_memory(":memory:") as plain:
        memory = spans.of(plain)
        with pytest.raises(NotFound):
            await memory.get_episode("nobody")
        assert not spans.ended[0].status.is_ok
        assert spans.ended[0].events[0].name == "exception"
        problem = ValueError("of the body")
        with pytest.raises(ValueError, match="of the body") as caught:
            async with memory.episode("a task", episode_id="e"):
                raise problem
        assert caught.value is problem
        assert not spans.ended[-1].status.is_ok
        with trio.CancelScope() as scope:
            scope.cancel()
            await memory.get_episode("e")
        assert (spans.ended[-1].attributes or {})["stepwell.cancelled"] is True
        assert spans.ended[-1].status.is_unset


async def test_a_memory_that_is_not_wrapped_makes_no_spans(spans: Spans) -> None:
    async with open_memory(":memory:") as memory:
        spans.of(memory)
        await memory.start_episode("a task")
        assert spans.ended == ()


def run(program: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**child_environment(), **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_nothing_loads_opentelemetry_by_itself() -> None:
    program = "import sys, stepwell; print([n for n in sys.modules if 'opentelemetry' in n or n == 'stepwell.tracing'])"
    assert run(program) == "[]\n"


def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys\nsys.modules['opentelemetry'] = None\nfrom stepwell.tracing import traced\n"
        "try:\n    traced(None)\nexcept ImportError as error:\n    print(error)"
    )
    assert "pip install 'stepwell[otel]'" in run(program)
