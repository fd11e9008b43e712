"""Short, readable lines made of text that may be anything: a megabyte long, full of NULs, in any script.

Every function here takes any `str` and never fails. Its cost is bounded by what it shows, not by what it is given,
except for leading blanks.
"""

from __future__ import annotations

import re
import unicodedata

ELLIPSIS = "…"
QUOTE_CHARACTERS = 80
"""Longest quotation of a text (error, action, reason) in a line, in code points, the ellipsis included."""
NAME_CHARACTERS = 40
"""Longest quotation of a name (tool, domain, artifact) in a line, in code points, the ellipsis included."""
LARGEST_WHOLE = 10**15
"""Whole numbers beyond this are not written out: Python refuses to print those of more than 4,300 digits."""

# A window of this many times the limit is read: enough for text that is not mostly blanks.
_WINDOW = 8
# Controls are as good as blanks. The directional embeddings, overrides and isolates are dropped, because cutting off
# the character that ends one would reverse the rest of the line; lone surrogates, because no encoder accepts them.
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069]+")
_SURROGATES = re.compile("[\ud800-\udfff]")
_VISIBLE = re.compile("[^\\s\\x00-\\x1f\\x7f-\\x9f\u202a-\u202e\u2066-\u2069]")

_ZERO_WIDTH_JOINER = "\u200d"
_EXTENDERS = re.compile("[\u200c\u200d\uff9e\uff9f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")
_FLAG_LETTER = re.compile("[\U0001f1e6-\U0001f1ff]")
_HANGUL_LEADING = re.compile("[\u1100-\u115f\ua960-\ua97c]")
_HANGUL_FOLLOWING = re.compile("[\u1160-\u11ff\ud7b0-\ud7fb]")
_HANGUL_SYLLABLE = re.compile("[\u1100-\u115f\ua960-\ua97c\uac00-\ud7a3]")


def clean(text: str) -> str:
    """The text as one line: blanks and control characters collapsed to single spaces, lone surrogates as U+FFFD."""
    return _SURROGATES.sub("\ufffd", _BLANKS.sub(" ", _DIRECTIONS.sub("", text))).strip()


def shorten(text: str, limit: int = QUOTE_CHARACTERS) -> str:
    """The text as one line of at most `limit` code points, ending in an ellipsis if something was left out.

    The cut is never inside a combining sequence, an emoji sequence, a flag or a Hangul syllable (the cases of Unicode
    Annex 29 that matter for display), unless a single one of them is longer than the limit.
    """
    start = _VISIBLE.search(text)
    if start is None:
        return ""
    end = start.start() + limit * _WINDOW
    line = clean(text[start.start() : end])
    if len(line) <= limit and end >= len(text):
        return line
    return line[: _safe_cut(line, limit - len(ELLIPSIS))].rstrip() + ELLIPSIS


def name(text: str) -> str:
    """A name for a line: shortened to `NAME_CHARACTERS`, and never empty."""
    return shorten(text, NAME_CHARACTERS) or "(unnamed)"


def names(texts: list[str], most: int) -> str:
    """Up to `most` names with commas between them, and an ellipsis for the others."""
    shown = [name(text) for text in texts[:most]]
    return ", ".join([*shown, ELLIPSIS] if len(texts) > most else shown)


def explained(line: str, explanation: str, *, limit: int = QUOTE_CHARACTERS) -> str:
    """`line: explanation`, or the line alone when there is nothing visible in the explanation."""
    quote = shorten(explanation, limit)
    return f"{line}: {quote}" if quote else line


def first_words(text: str, limit: int) -> str:
    """The text with single spaces, cut after `limit` words (separated by blanks) and then ending in an ellipsis."""
    words = text.split()
    if len(words) <= limit:
        return " ".join(words)
    return " ".join(words[:limit]) + ELLIPSIS


def sentence(text: str) -> str:
    """The text with a full stop, unless it already ends like a sentence."""
    return text if text.endswith((".", "!", "?", ELLIPSIS, "。", "！", "？")) else f"{text}."


def counted(count: int, noun: str) -> str:
    """A count with its noun: `1 step`, `1,000 steps`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def known_steps(known: int, steps: int) -> str:
    """How many steps a rate is over: `4 steps`, or `4 steps with a result` if there are others."""
    return counted(known, "step") if known == steps else f"{counted(known, 'step')} with a result"


def whole(number: int) -> str:
    """A whole number that a caller gave, or `(a huge number)` beyond `LARGEST_WHOLE`."""
    return str(number) if abs(number) <= LARGEST_WHOLE else "(a huge number)"


def percent(part: int, total: int) -> str:
    """A share in whole percent, rounded down, so that 100% means all of them."""
    return f"{100 * part // total}%"


_LONGEST = 1e12  # longer times come from broken clocks, and would be lines of digits


def span(seconds: float) -> str:
    """A length of time as a person would say it: `0.4 s`, `42 s`, `3 min 20 s`, `1 h 5 min`."""
    if seconds < 10:
        # A length below zero comes from a clock that was set back.
        return f"{max(seconds, 0.0):.1f} s"
    rounded = int(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    if seconds >= _LONGEST:
        return f"{seconds / 3600:.1e} h"
    return f"{rounded // 3600:,} h {rounded % 3600 // 60} min"


def remedy(failed_tool: str, succeeded_tool: str) -> str:
    """What helped after a failure, as a clause."""
    if failed_tool == succeeded_tool:
        return f"'{name(failed_tool)}' failed, and worked when called again"
    return f"'{name(succeeded_tool)}' worked after '{name(failed_tool)}' failed"


def _safe_cut(line: str, limit: int) -> int:
    """The last place at or before `limit` where the line may be cut; `limit` itself if there is none."""
    if limit >= len(line):
        return len(line)
    cut = limit
    while cut > 0 and _joined(line, cut):
        cut -= 1
    return cut or limit


def _joined(line: str, cut: int) -> bool:
    """Whether the characters on both sides of a place belong together."""
    left, right = line[cut - 1], line[cut]
    if left == _ZERO_WIDTH_JOINER or _EXTENDERS.match(right) or unicodedata.category(right).startswith("M"):
        return True
    if _FLAG_LETTER.match(left) and _FLAG_LETTER.match(right):
        # Flags are pairs of letters counted from the start of a run of them.
        start = cut
        while start > 0 and _FLAG_LETTER.match(line[start - 1]):
            start -= 1
        return (cut - start) % 2 == 1
    if _HANGUL_FOLLOWING.match(right):
        return True
    return bool(_HANGUL_LEADING.match(left) and _HANGUL_SYLLABLE.match(right))
