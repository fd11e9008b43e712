"""Changes that organise an episode, for the suites that kill processes: what one says follows from its number alone.

The number stands in the event as its actor, so that a lost change, a doubled and an invented one can be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepwell import AtomicScope, Memory
from stepwell.model.organising import ORGANISING

FIRST = -10
"""Changes that an agent makes beside numbered steps count down from here, steps up from 0."""


def beside_step(number: int) -> int:
    """The number of the change that is made in front of a step."""
    return FIRST - number


def is_change(kind: str) -> bool:
    """Whether events of this kind organise an episode."""
    return kind in ORGANISING


def number_of(data: Mapping[str, Any]) -> int:
    """The number of the change that an event tells."""
    return int(data["actor"])


def is_what_was_sent(number: int, kind: str, data: Mapping[str, Any]) -> bool:
    """Whether an event tells the change of this number."""
    wanted: tuple[str, dict[str, Any]] = (
        ("tagged", {"added": [f"tag {number}"], "removed": []}),
        ("updated", {"description": f"step {number}", "metadata": {f"n{number}": number}, "removed_metadata": []}),
        ("checkpointed", {"reason": f"at {number}", "note": "", "steps": data.get("steps")}),
    )[number % 3]
    return (kind, dict(data)) == (wanted[0], {**wanted[1], "actor": str(number)})


async def make(memory: Memory, episode: str, number: int) -> None:
    """Make the change of this number; durable on return."""
    if number % 3 == 0:
        await memory.add_tags(episode, [f"tag {number}"], actor=str(number))
    elif number % 3 == 1:
        description, metadata = f"step {number}", {f"n{number}": number}
        await memory.update_episode(episode, description=description, metadata=metadata, actor=str(number))
    else:
        await memory.checkpoint(episode, f"at {number}", actor=str(number))


def can_be_repeated(number: int) -> bool:
    """Whether making the change twice records it once."""
    return number % 3 == 0


def stage(tx: AtomicScope, episode: str, number: int) -> None:
    """Stage the change of this number."""
    if number % 3 == 0:
        tx.add_tags(episode, [f"tag {number}"], actor=str(number))
    elif number % 3 == 1:
        description, metadata = f"step {number}", {f"n{number}": number}
        tx.update_episode(episode, description=description, metadata=metadata, actor=str(number))
    else:
        tx.checkpoint(episode, f"at {number}", actor=str(number))
