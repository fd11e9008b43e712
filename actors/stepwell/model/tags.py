"""Tags: short labels, kept as they were written and matched without regard to case."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from stepwell.errors import InvalidInput, TooLarge
from stepwell.model import validation as check
from stepwell.model.limits import Limits


def tag_key(tag: str) -> str:
    """What two tags have in common that count as the same."""
    return tag.casefold()


def checked_tags(tags: object, path: str, limits: Limits) -> list[str]:
    """A list of tags, each trimmed.

    Raises: `InvalidInput`, `TooLarge`, naming the tag below `path`.
    """
    if not isinstance(tags, list | tuple):
        raise InvalidInput(f"{path}: must be a list of texts, not {type(tags).__name__}")
    return [_checked_tag(tag, f"{path}[{position}]", limits) for position, tag in enumerate(tags)]


def _checked_tag(tag: object, path: str, limits: Limits) -> str:
    if not isinstance(tag, str):
        raise InvalidInput(f"{path}: a tag is text, not {type(tag).__name__}")
    trimmed = str.__str__(tag).strip()
    if not trimmed or any(unicodedata.category(character) == "Cc" for character in trimmed):
        raise InvalidInput(f"{path}: a tag must not be empty or hold control characters")
    size = len(trimmed.encode("utf-8", "surrogatepass"))
    if size > limits.tag_bytes:
        raise TooLarge(f"{path}: {size} bytes exceed the limit of {limits.tag_bytes} a tag may have")
    bad_text = check.find_bad_text(trimmed, path)
    if bad_text is not None:
        raise InvalidInput(bad_text)
    return trimmed


def with_tags(tags: list[str], added: Iterable[str]) -> list[str]:
    """`tags` and, behind them, those of `added` that are not among them."""
    found = {tag_key(tag) for tag in tags}
    result = list(tags)
    for tag in added:
        if tag_key(tag) not in found:
            found.add(tag_key(tag))
            result.append(tag)
    return result


def without_tags(tags: list[str], removed: Iterable[str]) -> list[str]:
    """`tags` without those that are the same as one of `removed`."""
    gone = {tag_key(tag) for tag in removed}
    return [tag for tag in tags if tag_key(tag) not in gone]
