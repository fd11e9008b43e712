"""An episode is a fold of its records; this is the fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from stepwell.errors import EpisodeUnavailable
from stepwell.model.checkpoint import checkpoint_of
from stepwell.model.codec import DecodedRecord
from stepwell.model.ending import Ending, decode_ending
from stepwell.model.episode import Episode
from stepwell.model.event import ENDED, STARTED, STEP, utc
from stepwell.model.organising import ORGANISING, Organisation, decode_organising
from stepwell.model.outcome import TaskOutcome
from stepwell.model.start import EpisodeStart, decode_start
from stepwell.model.step import EpisodeStep
from stepwell.model.step_decoding import decode_steps, episode_step


class EpisodeFold:
    """Takes the records of one episode in order and builds its state. Kinds it does not know are counted, not lost."""

    def __init__(self, episode_id: str):
        self.episode_id = episode_id
        self.start: EpisodeStart | None = None
        self.ending: Ending | None = None
        self.organisation: Organisation | None = None
        self.steps: list[EpisodeStep] = []
        self.last_seq = self.last_lsn = self.end_seq = self.end_lsn = 0
        self.start_ns = self.last_ns = self.end_ns = 0

    def add(self, seq: int, lsn: int, record: DecodedRecord) -> None:
        """Take up one record.

        Raises: `EpisodeUnavailable` (reason "undecodable").
        """
        _version, kind, time_ns, data, meta = record
        try:
            if kind == STEP:
                self.steps.append(episode_step(seq, len(self.steps) + 1, time_ns, data, meta))
            elif kind == STARTED:
                self.start, self.start_ns = decode_start(data), time_ns
                self.organisation = Organisation(self.start)
            elif kind == ENDED:
                self.ending, self.end_ns = decode_ending(data), time_ns
                self.end_seq, self.end_lsn = seq, lsn
            elif kind in ORGANISING and self.organisation is not None:
                self.organisation.apply(decode_organising(kind, data), seq, time_ns)
        except (msgspec.ValidationError, ValueError, TypeError, IndexError, KeyError) as error:
            raise EpisodeUnavailable(
                f"record {seq} of episode {self.episode_id!r} is no sound {kind!r}: {error}", reason="undecodable"
            ) from error
        self.last_seq, self.last_lsn = seq, lsn
        if time_ns > self.last_ns:
            self.last_ns = time_ns

    def add_steps(self, seqs: Sequence[int], lsns: Sequence[int], payloads: Sequence[bytes]) -> list[int] | None:
        """Take up at once the records of several steps (see `step_decoding.are_steps`). Gives the places of those that
        have a key. None if that cannot be: nothing is taken up then, and `add` says of each what it is."""
        decoded = decode_steps(payloads, seqs, len(self.steps) + 1)
        if decoded is None:
            return None
        steps, keyed, latest_ns = decoded
        self.steps += steps
        self.last_seq, self.last_lsn, self.last_ns = seqs[-1], lsns[-1], max(self.last_ns, latest_ns)
        return keyed

    def episode(self, *, outcome: TaskOutcome | None = None, end_ns: int | None = None) -> Episode:
        """The episode so far. With `outcome` and `end_ns`, as it would be if it ended so now (for the analysis)."""
        start, organisation = self.start, self.organisation
        if start is None or organisation is None:
            raise EpisodeUnavailable(f"episode {self.episode_id!r} has no start record", reason="undecodable")
        ending = self.ending
        fields: dict[str, Any] = {}
        if ending is not None:
            fields = {
                "end_time": utc(self.end_ns),
                "outcome": ending.outcome,
                "outcome_metadata": ending.metadata,
                "reward": ending.reward,
                "reflection": ending.reflection,
                "summary": ending.summary,
                "quality": ending.quality,
                "salient_features": ending.salient_features,
                "formula_version": ending.formula_version,
            }
        elif outcome is not None and end_ns is not None:
            fields = {"outcome": outcome, "end_time": utc(end_ns)}
        return Episode(
            episode_id=self.episode_id,
            task_description=organisation.description,
            task_type=start.task_type,
            context=msgspec.structs.replace(start.context, tags=list(organisation.tags)),
            agent=start.agent,
            parent=start.parent,
            thread=start.thread,
            metadata=organisation.metadata,
            archived_at=None if organisation.archived_ns is None else utc(organisation.archived_ns),
            checkpoints=[checkpoint_of(self.episode_id, *found) for found in organisation.checkpoints],
            start_time=utc(self.start_ns),
            last_seq=self.last_seq,
            steps=list(self.steps),
            **fields,
        )
