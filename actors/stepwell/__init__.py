"""Stepwell: embeddable episodic memory for AI agents, on Trio.

    async with open_memory("agent-memory") as memory:
        async with memory.episode("Fix the flaky test", domain="ci") as episode:
            await episode.log_step(ExecutionStep(tool="pytest", action="run", result=StepError("1 failed")))

General layout, bottom to top (an arrow never runs up):

- `errors`: the whole error family on one screen.
- `model`: what an episode, a step, an outcome and an event are. `learning`: reward, reflection, summary. No I/O.
- `runtime`: one Trio task per episode, a supervisor that owns their cells, the journal of `stepstore` under them.
- `memory`: what users hold.
- The doors, which stand beside each other and which nothing imports: `cli` (the command line), `testing` (for tests of
  agents and of journals), `aio` (asyncio) and `sync` (plain code), these two on `bridge`, which takes their calls to a
  Trio thread and back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepstore.log.key_provider import KeyProvider as KeyProvider
from stepstore.log.key_provider import LocalKeyProvider as LocalKeyProvider
from stepwell import errors as errors
from stepwell import events as events
from stepwell._version import __version__ as __version__
from stepwell.errors import Busy as Busy
from stepwell.errors import Closed as Closed
from stepwell.errors import CorruptLog as CorruptLog
from stepwell.errors import Damaged as Damaged
from stepwell.errors import EpisodeUnavailable as EpisodeUnavailable
from stepwell.errors import Fenced as Fenced
from stepwell.errors import Forked as Forked
from stepwell.errors import InvalidInput as InvalidInput
from stepwell.errors import InvalidState as InvalidState
from stepwell.errors import KeyDestroyed as KeyDestroyed
from stepwell.errors import LogFull as LogFull
from stepwell.errors import LogLocked as LogLocked
from stepwell.errors import NotFound as NotFound
from stepwell.errors import OutcomeUnknown as OutcomeUnknown
from stepwell.errors import RecoveryFailed as RecoveryFailed
from stepwell.errors import Rejected as Rejected
from stepwell.errors import StepwellError as StepwellError
from stepwell.errors import TooLarge as TooLarge
from stepwell.errors import Unavailable as Unavailable
from stepwell.errors import WrongLoop as WrongLoop
from stepwell.memory import open_memory as open_memory
from stepwell.model import graph as graph
from stepwell.model.analysis import EpisodeSummary as EpisodeSummary
from stepwell.model.analysis import QualityScore as QualityScore
from stepwell.model.analysis import Reflection as Reflection
from stepwell.model.analysis import RewardScore as RewardScore
from stepwell.model.analysis import SalientFeatures as SalientFeatures
from stepwell.model.checkpoint import Checkpoint as Checkpoint
from stepwell.model.context import TaskContext as TaskContext
from stepwell.model.episode import Episode as Episode
from stepwell.model.episode_filter import EpisodeFilter as EpisodeFilter
from stepwell.model.event import Event as Event
from stepwell.model.fact import Fact as Fact
from stepwell.model.fact import FactId as FactId
from stepwell.model.fact import Hit as Hit
from stepwell.model.fact import Origin as Origin
from stepwell.model.fact import StoredFact as StoredFact
from stepwell.model.fact import Why as Why
from stepwell.model.fact_page import FactPage as FactPage
from stepwell.model.handoff import HandoffPack as HandoffPack
from stepwell.model.ids import EpisodeId as EpisodeId
from stepwell.model.ids import RunId as RunId
from stepwell.model.ids import ThreadId as ThreadId
from stepwell.model.limits import Limits as Limits
from stepwell.model.listed_episode import ListedEpisode as ListedEpisode
from stepwell.model.listed_episode import Page as Page
from stepwell.model.message import Message as Message
from stepwell.model.message import Role as Role
from stepwell.model.message import ThreadSummary as ThreadSummary
from stepwell.model.message import chars_over_4 as chars_over_4
from stepwell.model.outcome import Abstained as Abstained
from stepwell.model.outcome import Failure as Failure
from stepwell.model.outcome import Interrupted as Interrupted
from stepwell.model.outcome import PartialSuccess as PartialSuccess
from stepwell.model.outcome import Success as Success
from stepwell.model.pattern import ContextPattern as ContextPattern
from stepwell.model.pattern import DeadEnd as DeadEnd
from stepwell.model.pattern import DecisionPoint as DecisionPoint
from stepwell.model.pattern import ErrorRecovery as ErrorRecovery
from stepwell.model.pattern import Explanation as Explanation
from stepwell.model.pattern import Loop as Loop
from stepwell.model.pattern import Pattern as Pattern
from stepwell.model.pattern import ToolSequence as ToolSequence
from stepwell.model.recall_semantics import RecallSemantics as RecallSemantics
from stepwell.model.recommendation import Advice as Advice
from stepwell.model.recommendation import FeedbackReceipt as FeedbackReceipt
from stepwell.model.recommendation import Heuristic as Heuristic
from stepwell.model.recommendation import Playbook as Playbook
from stepwell.model.recommendation import Recommendation as Recommendation
from stepwell.model.recommendation import RecommendationStats as RecommendationStats
from stepwell.model.redaction import default_redactor as default_redactor
from stepwell.model.relationship import Relationship as Relationship
from stepwell.model.retention import EvictedEpisode as EvictedEpisode
from stepwell.model.retention import RetentionPolicy as RetentionPolicy
from stepwell.model.retention import RetentionReport as RetentionReport
from stepwell.model.run_filter import RunFilter as RunFilter
from stepwell.model.run_filter import RunSummary as RunSummary
from stepwell.model.run_record import RecordedEvent as RecordedEvent
from stepwell.model.scope import Scope as Scope
from stepwell.model.skill import Skill as Skill
from stepwell.model.skill import SkillMatch as SkillMatch
from stepwell.model.step import EpisodeStep as EpisodeStep
from stepwell.model.step import ExecutionStep as ExecutionStep
from stepwell.model.step import StepError as StepError
from stepwell.model.step import StepInterrupted as StepInterrupted
from stepwell.model.step import StepSuccess as StepSuccess
from stepwell.model.step import StepTimeout as StepTimeout
from stepwell.model.tag_count import TagCount as TagCount
from stepwell.model.tag_count import TagPage as TagPage
from stepwell.model.thread_window import ThreadWindow as ThreadWindow
from stepwell.model.usage import Price as Price
from stepwell.model.usage import Usage as Usage
from stepwell.model.usage import UsageReport as UsageReport
from stepwell.runtime.config import BatchConfig as BatchConfig
from stepwell.runtime.config import MemoryConfig as MemoryConfig
from stepwell.runtime.embedding import Embedder as Embedder

if TYPE_CHECKING:
    from stepstore.journal import ArchiveReport as ArchiveReport
    from stepstore.journal import CompactionReport as CompactionReport
    from stepstore.journal import DeletionReport as DeletionReport
    from stepstore.journal import Gap as Gap
    from stepwell.learning.scored_episode import RelevantEpisodes as RelevantEpisodes
    from stepwell.learning.scored_episode import ScoredEpisode as ScoredEpisode
    from stepwell.learning.scored_episode import ScorePart as ScorePart
    from stepwell.memory.atomic import AtomicScope as AtomicScope
    from stepwell.memory.completed import CompletedEpisode as CompletedEpisode
    from stepwell.memory.episodic import EpisodicPort as EpisodicPort
    from stepwell.memory.figures import MemoryHealth as MemoryHealth
    from stepwell.memory.figures import MemoryRecovery as MemoryRecovery
    from stepwell.memory.figures import MemoryStats as MemoryStats
    from stepwell.memory.following import NOW as NOW
    from stepwell.memory.following import START as START
    from stepwell.memory.handle import EpisodeHandle as EpisodeHandle
    from stepwell.memory.long_term import LongTermPort as LongTermPort
    from stepwell.memory.long_term_contract import LongTermMemory as LongTermMemory
    from stepwell.memory.memory import Memory as Memory
    from stepwell.memory.ports import EpisodicMemory as EpisodicMemory
    from stepwell.memory.ports import ShortTermMemory as ShortTermMemory
    from stepwell.memory.short_term import ShortTermPort as ShortTermPort
    from stepwell.memory.skills import Skills as Skills
    from stepwell.memory.summarising import Summarised as Summarised
    from stepwell.replaying import RecordedToolError as RecordedToolError
    from stepwell.replaying import ReplayDiverged as ReplayDiverged
    from stepwell.replaying import ReplayedRun as ReplayedRun
    from stepwell.runtime.lifecycle_events import LifecycleEvent as LifecycleEvent
    from stepwell.runtime.reading import OpenEpisode as OpenEpisode
    from stepwell.runtime.receipt import Receipt as Receipt
else:
    # What only an open memory hands out, or needs, is loaded when one is opened, or when it is named.
    from importlib import import_module as _import_module

    _NAMED_LATER = {
        "ArchiveReport": "stepstore.journal",
        "CompactionReport": "stepstore.journal",
        "DeletionReport": "stepstore.journal",
        "Gap": "stepstore.journal",
        "RelevantEpisodes": "stepwell.learning.scored_episode",
        "ScoredEpisode": "stepwell.learning.scored_episode",
        "ScorePart": "stepwell.learning.scored_episode",
        "AtomicScope": "stepwell.memory.atomic",
        "CompletedEpisode": "stepwell.memory.completed",
        "EpisodicPort": "stepwell.memory.episodic",
        "MemoryHealth": "stepwell.memory.figures",
        "MemoryRecovery": "stepwell.memory.figures",
        "MemoryStats": "stepwell.memory.figures",
        "NOW": "stepwell.memory.following",
        "START": "stepwell.memory.following",
        "EpisodeHandle": "stepwell.memory.handle",
        "LongTermPort": "stepwell.memory.long_term",
        "LongTermMemory": "stepwell.memory.long_term_contract",
        "Memory": "stepwell.memory.memory",
        "EpisodicMemory": "stepwell.memory.ports",
        "ShortTermMemory": "stepwell.memory.ports",
        "ShortTermPort": "stepwell.memory.short_term",
        "Skills": "stepwell.memory.skills",
        "Summarised": "stepwell.memory.summarising",
        "RecordedToolError": "stepwell.replaying",
        "ReplayDiverged": "stepwell.replaying",
        "ReplayedRun": "stepwell.replaying",
        "LifecycleEvent": "stepwell.runtime.lifecycle_events",
        "OpenEpisode": "stepwell.runtime.reading",
        "Receipt": "stepwell.runtime.receipt",
    }

    def __getattr__(name):
        if name not in _NAMED_LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(_import_module(_NAMED_LATER[name]), name)
        return value

    def __dir__():
        return sorted({*globals(), *_NAMED_LATER})

    # The packages inside, which are here once something of them is imported, are none of the names that it gives.
    _UNNAMED = ("annotations", "TYPE_CHECKING", "learning", "memory", "model", "runtime")
    __all__ = [name for name in __dir__() if not name.startswith("_") and name not in _UNNAMED]
