"""Which facts form a conversation, and in which order: that of remembering."""

from __future__ import annotations

from array import array

from stepwell.learning.recall.passage import Key, Membership

NONE = 0
"""The conversation of a fact that is part of none."""


class Conversations:
    """Facts are numbers, added in rising order; a fact that was removed leaves its place empty, so that those around it
    stay as far from each other as they were."""

    def __init__(self) -> None:
        self.of = array("I", [NONE])
        """The conversation of each fact, by its number."""
        self._place = array("I", [0])
        self._members: list[array[int]] = [array("I")]
        self.living: list[int] = [0]
        """How many facts each conversation has."""
        self.count = self.facts = 0
        self._known: dict[Key, int] = {}
        self._previous: tuple[Membership, int] | None = None
        """The fact added last, and its conversation, whether it is still there or not."""

    def add(self, number: int, member: Membership) -> None:
        """Add a fact with a number above all before."""
        missing = number - len(self.of)
        if missing > 0:
            self.of.extend([NONE] * missing)
            self._place.extend([0] * missing)
        conversation = self._conversation(member)
        self._previous = member, conversation
        self.of.append(conversation)
        self._place.append(len(self._members[conversation]))
        if conversation:
            self._members[conversation].append(number)
            self.living[conversation] += 1
            self.count += self.living[conversation] == 1
            self.facts += 1

    def _conversation(self, member: Membership) -> int:
        if member.shared is not None:
            found = self._known.get(member.shared)
            if found is None:
                found = self._known[member.shared] = self._begin()
            return found
        if not member.is_turn:
            return NONE
        if self._previous is not None:
            before, conversation = self._previous
            if before.is_turn and before.days == member.days:
                return conversation
        return self._begin()

    def _begin(self) -> int:
        self._members.append(array("I"))
        self.living.append(0)
        return len(self.living) - 1

    def remove(self, number: int) -> None:
        """Take a fact out again."""
        conversation = self.of[number]
        if conversation:
            self._members[conversation][self._place[number]] = 0
            self.living[conversation] -= 1
            self.count -= not self.living[conversation]
            self.facts -= 1

    def around(self, number: int, distance: int) -> tuple[int, int]:
        """The facts so many places before and after one in its conversation; 0 where there is none."""
        conversation = self.of[number]
        if not conversation:
            return 0, 0
        members, place = self._members[conversation], self._place[number]
        return (
            members[place - distance] if place >= distance else 0,
            members[place + distance] if place + distance < len(members) else 0,
        )
