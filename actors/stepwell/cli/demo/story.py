"""The demo from beginning to end: log, kill, recover, compare, resume; every act leaves its figures in a `Story`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from stepwell import Memory, open_memory
from stepwell.cli.demo.agent import work
from stepwell.cli.demo.crash import Crash, kill_after, run_and_kill
from stepwell.cli.demo.ledger import RecoveredEpisode, Verdict
from stepwell.cli.demo.plan import start_program
from stepwell.cli.output import CommandFailed
from stepwell.model.episode import Episode
from stepwell.model.outcome import outcome_kind


class Reopened(msgspec.Struct, kw_only=True):
    """What opening the log did after the crash, as `memory.recovery` says, and how long all of it took."""

    segments: int
    records: int
    bytes_cut: int
    quarantined: list[str]
    open_episodes: int
    recovery_seconds: float
    open_seconds: float


class Resumed(msgspec.Struct, kw_only=True):
    """The open episodes, run to their end by the process that reopened the log."""

    episodes: int
    steps: int
    seconds: float


class ToolFigures(msgspec.Struct, kw_only=True):
    """How one tool did over all episodes."""

    tool: str
    calls: int = 0
    failed: int = 0
    total_ms: float = 0.0
    slowest_ms: float = 0.0

    @property
    def mean_ms(self) -> float:
        """Milliseconds of an average call."""
        return self.total_ms / self.calls


class Story(msgspec.Struct, kw_only=True):
    """Everything the demo has to tell.

    `verdict` compares right after reopening, `final` once all episodes have ended. `example_cut` is the last `seq`
    that the log held of the example when its process was killed.
    """

    agents: int
    seed: int
    directory: str
    crash: Crash
    reopened: Reopened
    verdict: Verdict
    resumed: Resumed
    final: Verdict
    outcomes: dict[str, int]
    tools: list[ToolFigures]
    example: Episode | None
    example_cut: int | None

    @property
    def ok(self) -> bool:
        """Whether the memory kept every promise, at the crash and to the end."""
        return self.verdict.ok and self.final.ok and "open" not in self.outcomes


Act = Crash | Reopened | Verdict | Resumed


async def tell(
    directory: Path,
    *,
    agents: int,
    seed: int,
    on_progress: Callable[[str, int, int], None] = lambda doing, done, total: None,
    on_act: Callable[[Act], None] = lambda act: None,
) -> Story:
    """Run the whole demo in an empty directory.

    `on_progress(doing, done, total)` is called while an act lasts, `on_act` with its figures when it is over.

    Raises:
        CommandFailed: the fleet process did not do its part.
    """
    after = kill_after(agents, seed)
    ledger, crash = await run_and_kill(
        directory,
        agents=agents,
        seed=seed,
        after=after,
        on_progress=lambda done: on_progress(f"{agents} agents at work", min(done, after), after),
    )
    on_act(crash)
    began = trio.current_time()
    async with open_memory(directory) as memory:
        reopened = _reopened(memory, trio.current_time() - began)
        on_act(reopened)
        recovered = await _all_episodes(memory, lambda done: on_progress("comparing", done, len(ledger.started)))
        verdict = ledger.compare({episode.episode_id: RecoveredEpisode.of(episode) for episode in recovered})
        on_act(verdict)
        cuts = {episode.episode_id: episode.last_seq for episode in recovered if not episode.is_complete}

        resume_began = trio.current_time()
        await _resume_all(memory, lambda done, total: on_progress("resuming", done, total))
        resume_seconds = trio.current_time() - resume_began
        episodes = await _all_episodes(memory, lambda done: None)
        final = ledger.compare({episode.episode_id: RecoveredEpisode.of(episode) for episode in episodes})
        resumed = Resumed(episodes=len(cuts), steps=final.recovered - verdict.recovered, seconds=resume_seconds)
        on_act(resumed)
        on_act(final)
    example = _example(episodes, cuts)
    return Story(
        agents=agents,
        seed=seed,
        directory=str(directory),
        crash=crash,
        reopened=reopened,
        verdict=verdict,
        resumed=resumed,
        final=final,
        outcomes=_outcomes(episodes),
        tools=_tool_figures(episodes),
        example=example,
        example_cut=None if example is None else cuts.get(example.episode_id),
    )


def refuse_used_directory(directory: Path) -> None:
    """The demo writes into an empty or a new directory only.

    Raises:
        CommandFailed: there is something in it already, or it is no directory.
    """
    if directory.exists() and not directory.is_dir():
        raise CommandFailed(f"{directory} is not a directory; name one that is empty or does not exist yet")
    if directory.is_dir() and any(directory.iterdir()):
        raise CommandFailed(
            f"{directory} is not empty, and the demo only writes where nothing is yet; "
            "name another --dir, or leave it out to use a temporary directory"
        )


def _reopened(memory: Memory, open_seconds: float) -> Reopened:
    recovery = memory.recovery
    return Reopened(
        segments=recovery.segments,
        records=recovery.records,
        bytes_cut=recovery.bytes_cut,
        quarantined=list(recovery.quarantined),
        open_episodes=recovery.open_episodes,
        recovery_seconds=recovery.seconds,
        open_seconds=open_seconds,
    )


async def _all_episodes(memory: Memory, on_progress: Callable[[int], None]) -> list[Episode]:
    episodes: list[Episode] = []
    async for episode_id in memory.episode_ids():
        episodes.append(await memory.get_episode(episode_id))
        on_progress(len(episodes))
    return episodes


async def _resume_all(memory: Memory, on_progress: Callable[[int, int], None]) -> None:
    """Take every open episode up where the log says it stands, and run it to its end, all at once."""
    rows = await memory.open_episodes()
    done = 0

    async def resume(episode_id: str) -> None:
        nonlocal done
        handle = await memory.resume(episode_id)
        episode = await memory.get_episode(episode_id)
        outcome = await work(handle, start_program(episode.metadata), episode.steps, lambda *_: None)
        await handle.complete(outcome)
        done += 1
        on_progress(done, len(rows))

    async with trio.open_nursery() as nursery:
        for row in rows:
            nursery.start_soon(resume, row.episode_id)


def _outcomes(episodes: list[Episode]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for episode in episodes:
        kind = "open" if episode.outcome is None else outcome_kind(episode.outcome)
        counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _tool_figures(episodes: list[Episode]) -> list[ToolFigures]:
    """One entry per tool, the slowest on average first."""
    figures: dict[str, ToolFigures] = {}
    for episode in episodes:
        for step in episode.steps:
            figure = figures.setdefault(step.tool, ToolFigures(tool=step.tool))
            latency = step.latency_ms or 0.0
            figure.calls += 1
            figure.failed += step.failed
            figure.total_ms += latency
            figure.slowest_ms = max(figure.slowest_ms, latency)
    return sorted(figures.values(), key=lambda figure: -figure.mean_ms)


def _example(episodes: list[Episode], cuts: dict[str, int]) -> Episode | None:
    """The episode that shows most: cut in its middle, with many tools and different failures, and not too long."""

    def interest(episode: Episode) -> tuple[bool, float]:
        cut = cuts.get(episode.episode_id, 0)
        before = sum(step.seq <= cut for step in episode.steps)
        in_the_middle = before >= 2 and len(episode.steps) - before >= 2
        tools = {step.tool for step in episode.steps}
        errors = {step.error_text.split(":")[0][:12] for step in episode.steps if step.error_text}
        return in_the_middle, len(tools) + 2 * len(errors) - 0.5 * episode.failed_steps - 0.2 * len(episode.steps)

    return max(episodes, key=interest, default=None)
