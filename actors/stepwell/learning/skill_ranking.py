"""Which skill is for a task: what it says, where it belongs, and how it did when it was used.

score = 0.55 x words in common + 0.20 x context + 0.25 x lower bound of success
"""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.learning.likeness import likeness, terms_of
from stepwell.learning.text import counted
from stepwell.learning.wording import share
from stepwell.model.context import TaskContext
from stepwell.model.skill import Skill, SkillMatch

SIMILAR_WEIGHT, CONTEXT_WEIGHT, USE_WEIGHT = 0.55, 0.20, 0.25
DOMAIN_SHARE, LANGUAGE_SHARE, TAGS_SHARE = 0.5, 0.2, 0.3


def ranked_skills(skills: Sequence[Skill], task: str, context: TaskContext | None) -> list[SkillMatch]:
    """The skills that have anything to do with a task, best first, then by name; all of them for an empty task."""
    asked = terms_of(task)
    found = [_match(skill, asked, context) for skill in skills]
    if asked:
        found = [it for it in found if it.similar > 0]
    return sorted(found, key=lambda it: (-it.score, it.skill.name, it.skill.skill_id))


def _match(skill: Skill, asked: frozenset[str], context: TaskContext | None) -> SkillMatch:
    similar = 0.0
    if asked:
        told = terms_of(" ".join([skill.name, skill.description, *skill.context.tags]))
        steps = terms_of(" ".join(skill.steps))
        similar = max(likeness(asked, told), len(asked & (told | steps)) / len(asked) / 2)
    near = 0.0 if context is None else _context(skill.context, context)
    parts = []
    if similar:
        parts.append(f"{share(similar)} of the words agree")
    if near:
        parts.append("the context is alike")
    uses = f"used {counted(skill.uses, 'time')}"
    parts.append(f"{uses}, helped {skill.helped:g} of {skill.judged:,}" if skill.judged else uses)
    score = SIMILAR_WEIGHT * similar + CONTEXT_WEIGHT * near + USE_WEIGHT * skill.confidence
    return SkillMatch(skill=skill, score=score, similar=similar, why="; ".join(parts))


def _context(one: TaskContext, other: TaskContext) -> float:
    tags, others = {tag.casefold() for tag in one.tags}, {tag.casefold() for tag in other.tags}
    common = len(tags & others) / len(tags | others) if tags | others else 0.0
    language = one.language is not None and one.language == other.language
    return DOMAIN_SHARE * (one.domain == other.domain) + LANGUAGE_SHARE * language + TAGS_SHARE * common
