"""What organises an episode, as events: one line for each change, at its place among the steps.

organise  episode, change ("tagged", "updated", "archived", "restored", "related", "checkpointed"), and its fields
"""

from __future__ import annotations

import msgspec

from stepwell.cli.neutral_form.events import BadLine, JsonObject, NeutralChange
from stepwell.cli.neutral_form.fields import Fields, shown
from stepwell.model.organising import (
    ORGANISING,
    OrganisingRecord,
    Related,
    Unrelated,
    decode_organising,
    organising_kind,
)


def change_event(episode: str, record: OrganisingRecord) -> JsonObject:
    """The event of a change; what is as by default is left out, and so is what the memory will know by itself."""
    said = {
        name: msgspec.to_builtins(value)
        for name in record.__struct_fields__
        if name not in _KNOWN and (value := getattr(record, name)) not in ("", [], {}, None)
    }
    return {"event": "organise", "episode": episode, "change": organising_kind(record), **said}


_KNOWN = ("from_episode", "steps")


def read_change(event: JsonObject) -> NeutralChange:
    """An event of the kind "organise". Raises: `BadLine`."""
    rest = Fields(event)
    episode, kind = rest.text("episode", required=True), rest.text("change", required=True)
    if kind not in ORGANISING:
        raise BadLine(f"change: one of {', '.join(sorted(ORGANISING))} is wanted, not {shown(kind)}")
    known: JsonObject = {"from_episode": episode} if "related" in kind else {}
    if kind == "checkpointed":
        known["steps"] = 0
    try:
        record = decode_organising(kind, {**rest.others(), **known})
    except msgspec.ValidationError as error:
        raise BadLine(f"{kind}: {error}") from None
    return NeutralChange(episode=episode, record=record)


def current_changes(
    changes: list[tuple[int, OrganisingRecord]], related: set[tuple[str, str]]
) -> list[tuple[int, OrganisingRecord]]:
    """The changes with their numbers, of relationships only those that are there now, each once."""
    kept: dict[tuple[str, str] | int, tuple[int, OrganisingRecord]] = {}
    for seq, record in changes:
        if isinstance(record, Related):
            if (record.kind, record.to_episode) in related:
                kept[record.kind, record.to_episode] = seq, record
        elif not isinstance(record, Unrelated):
            kept[seq] = seq, record
    return sorted(kept.values(), key=lambda change: change[0])
