"""Which messages of a thread fit into a number of tokens. Pure functions; the log is read by who calls them."""

from __future__ import annotations

import msgspec

from stepwell.errors import InvalidInput, TooLarge
from stepwell.model.message import Message, Oversize, Role, ThreadSummary, TokenCounter


class ThreadWindow(msgspec.Struct, frozen=True, kw_only=True):
    """The newest messages of a thread that fit, oldest first.

    `messages`: for a prompt; the first ones may be the `pinned` system message and the `summary`, the rest is one piece
    without a gap, the records `first_seq` to `last_seq` (0 if there are none). `tokens`: what all of it costs.
    `is_cut`: there are older messages. `is_oversize`: the newest message alone costs more than was allowed; with
    "keep_last" it is here all the same, and nothing else.
    """

    messages: list[Message]
    tokens: int
    first_seq: int
    last_seq: int
    is_cut: bool
    is_oversize: bool = False
    pinned: Message | None = None
    summary: ThreadSummary | None = None


class WindowBuilder:
    """Takes the messages of a thread from the newest backwards, until no more fit."""

    def __init__(self, max_tokens: int, counter: TokenCounter):
        self._budget, self._counter = max_tokens, counter
        self.kept: list[tuple[int, Message, int]] = []
        """(seq, message, cost), newest first."""
        self.tokens = 0
        self.is_full = False
        self.oversize: tuple[int, Message, int] | None = None

    def take(self, seq: int, message: Message) -> bool:
        """One message further back. False once it does not fit, and from then on."""
        if self.is_full:
            return False
        cost = counted(message, self._counter)
        if self.tokens + cost > self._budget:
            self.is_full = True
            if not self.kept:
                self.oversize = (seq, message, cost)
            return False
        self.kept.append((seq, message, cost))
        self.tokens += cost
        return True

    def cut_safely(self) -> None:
        """Something older was left out: the rest must not begin with replies of tools whose calls are not in it."""
        while self.kept and self.kept[-1][1].role == Role.TOOL:
            self.tokens -= self.kept.pop()[2]

    def window(self, oversize: Oversize, *, max_tokens: int, is_cut: bool) -> ThreadWindow:
        """What was taken. Raises: `TooLarge` (with "raise": the newest message alone does not fit)."""
        if self.oversize is not None:
            seq, message, cost = self.oversize
            if oversize == "raise" and max_tokens > 0:
                raise TooLarge(
                    f"the newest message costs {cost:,} tokens, and {max_tokens:,} are allowed; allow more, shorten "
                    'it, or choose oversize="keep_last"'
                )
            if oversize == "keep_last" and max_tokens > 0:
                return ThreadWindow(
                    messages=[message], tokens=cost, first_seq=seq, last_seq=seq, is_cut=is_cut, is_oversize=True
                )
        elif is_cut:
            self.cut_safely()
        kept = self.kept[::-1]
        return ThreadWindow(
            messages=[message for _seq, message, _cost in kept],
            tokens=self.tokens,
            first_seq=kept[0][0] if kept else 0,
            last_seq=kept[-1][0] if kept else 0,
            is_cut=is_cut,
            is_oversize=self.oversize is not None and max_tokens > 0,
        )


def counted(message: Message, counter: TokenCounter) -> int:
    """What a message costs. Raises: `InvalidInput` if the counter gives no number of tokens."""
    cost = counter(message)
    if type(cost) is not int or cost < 0:
        raise InvalidInput(f"token_counter: gave {cost!r} for a message; it must give a whole number, 0 or more")
    return cost


def summary_message(summary: ThreadSummary) -> Message:
    """How a summary stands in a prompt."""
    return Message(Role.SYSTEM, summary.text)
