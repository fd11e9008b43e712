"""The names, signatures and defaults that programs outside this repository are written against."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import stepwell
from stepwell import MemoryConfig, errors, events

TOP = """
open_memory ExecutionStep StepSuccess StepError StepTimeout TaskContext Success PartialSuccess Failure Abstained
Interrupted events EpisodeId RunId FactId ThreadId MemoryConfig BatchConfig Limits Receipt Episode EpisodeFilter Page
START NOW Event Checkpoint HandoffPack ScoredEpisode Recommendation Playbook Message Role Scope Fact Hit RunFilter
RunSummary ShortTermMemory LongTermMemory EpisodicMemory chars_over_4 StepwellError Rejected InvalidInput TooLarge
Closed LogFull Busy NotFound InvalidState OutcomeUnknown Fenced LogLocked CorruptLog Damaged Forked RecoveryFailed
Unavailable EpisodeUnavailable WrongLoop
"""
PLAIN = "handle episode events follow atomic stats health recovery short_term long_term episodic skills"
ASYNC = """
start_episode log_step log_steps flush_steps complete_episode get_episode get_episodes update_episode delete_episode
compact flush open_episodes resume abandon list_episodes add_tags remove_tags set_tags relate related checkpoint handoff
continue_from archive restore retain retrieve_relevant_context patterns recommend feedback playbook heuristics explain
"""
OTHERS = {
    "EpisodeHandle": "id episode_id log_step log_steps log_step_nowait record step flush complete",
    "AtomicScope": "log_step append record remember receipt",
    "Receipt": "seq lsn is_durable wait_durable",
    "ShortTermPort": "append load clear threads",
    "LongTermPort": "remember recall search get facts forget",
    "EpisodicPort": "record replay list_runs",
    "Skills": "store find delete",
    "Event": "stream kind seq lsn cursor time time_ns schema_version data",
}
SIGNATURES = {
    "Memory.delete_episode": "purge=False",
    "Memory.compact": "purge=False",
    "Memory.list_episodes": "filter=None limit=50 cursor=None at_least=None",
    "Memory.events": "after=0",
    "Memory.retain": "dry_run=False",
    "Memory.retrieve_relevant_context": "context=None limit=5",
    "Memory.feedback": "outcome=None rating=None",
    "LongTermPort.search": "k=5 where=None",
    "LongTermPort.facts": "limit=50 cursor=None",
    "open_memory": "config=None read_only=False",
}
DEFAULTS = {
    "durability": "receipt",
    "mailbox_size": 64,
    "max_live_episodes": 10_000,
    "idle_seconds": 120,
    "grace_seconds": 5,
    "max_episodes": None,
    "eviction": "relevance",
    "tail": "strict",
    "resume_open": False,
    "keys_kept": 1_024,
    "token_counter": stepwell.chars_over_4,
    "oversize": "strict",
    "redact": None,
    "embedder": None,
    "audit": None,
    "on_failure": "raise",
    "segment_bytes": 64 * 1024 * 1024,
    "align": 0,
    "key_provider": None,
    "batch": stepwell.BatchConfig(max_batch_size=50, flush_interval_ms=50, auto_flush=True),
}
FAMILY = {
    "StepwellError": "Rejected NotFound InvalidState OutcomeUnknown Fenced LogLocked CorruptLog RecoveryFailed "
    "Unavailable WrongLoop",
    "Rejected": "InvalidInput TooLarge Closed LogFull Busy",
    "CorruptLog": "Damaged Forked",
    "Unavailable": "EpisodeUnavailable",
}
COMMANDS = "demo list show tail replay search recommend stats verify salvage compact rebuild export import delete"


@pytest.mark.parametrize("name", TOP.split())
def test_it_is_at_the_top_level(name: str) -> None:
    assert hasattr(stepwell, name)


@pytest.mark.parametrize("name", [*PLAIN.split(), *ASYNC.split()])
def test_memory_has_it_and_it_is_async_where_it_is_to_be(name: str) -> None:
    member = inspect.getattr_static(stepwell.Memory, name, None)
    if name in ("short_term", "long_term", "episodic", "skills"):  # made for each memory
        assert member is not None or name in inspect.get_annotations(stepwell.Memory)
        return
    assert member is not None
    assert inspect.iscoroutinefunction(member) is (name in ASYNC.split())


@pytest.mark.parametrize("name", OTHERS)
def test_what_memory_gives_has_its_names(name: str) -> None:
    cls = getattr(stepwell, name)
    assert [member for member in OTHERS[name].split() if not hasattr(cls, member)] == []


@pytest.mark.parametrize("name", SIGNATURES)
def test_it_takes_these_arguments(name: str) -> None:
    function = stepwell
    for part in name.split("."):
        function = getattr(function, part)
    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    for wanted in SIGNATURES[name].split():
        argument, default = wanted.split("=")
        assert repr(parameters[argument].default) == default


def test_settings_have_their_defaults() -> None:
    config = MemoryConfig()
    assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS


def test_the_family_of_errors() -> None:
    for parent, children in FAMILY.items():
        for child in children.split():
            assert issubclass(getattr(errors, child), getattr(errors, parent)), child
            assert getattr(stepwell, child) is getattr(errors, child)
    assert issubclass(errors.InvalidInput, ValueError)
    assert issubclass(errors.NotFound, KeyError)
    assert str(errors.NotFound("a sentence")) == "a sentence"


def test_the_events_of_the_port() -> None:
    assert [
        name
        for name in ["Started", "ToolCall", "ToolOk", "Completed", "Failed", "LlmCall"]
        if not hasattr(events, name)
    ] == []


def test_the_commands() -> None:
    shown = subprocess.run([sys.executable, "-m", "stepwell", "--help"], capture_output=True, text=True, check=True)
    words = shown.stdout.split()
    assert [name for name in COMMANDS.split() if name not in words] == []
