"""By what steps of different episodes are the same."""

from __future__ import annotations

import pytest
from hypothesis import given

from stepwell.learning.operations import ERROR_CHARACTERS, call_text, error_of, general_error, operation_of
from stepwell.model.step import EpisodeStep
from tests.stepwell.learning.builders import step
from tests.stepwell.learning.strategies import steps, texts


@pytest.mark.parametrize(
    ("tool", "action", "operation"),
    [
        ("mysql", "SELECT", "mysql select"),
        ("mysql", "  Show TABLES", "mysql show"),
        ("grep", "", "grep"),
        ("bash", "./run.sh", "bash"),
        ("bash", "x9 now", "bash"),
        ("", "läuft noch", "(unnamed) läuft"),
        ("sh", "ve\u0301rifier le schéma", "sh vérifier"),
        ("sh", "देखें तालिका", "sh देखें"),
        ("sh", "أَكْتُب الملف", "sh أَكْتُب"),
        ("sh", "é9 x", "sh"),
        ("sh", "\u0301x", "sh"),
        ("sh", " é_x", "sh"),
        ("sh", "é" * 25, "sh"),
        ("sh", "检查 表", "sh 检查"),
    ],
)
def test_an_operation_is_a_tool_and_the_first_word_of_its_action(tool: str, action: str, operation: str) -> None:
    assert operation_of(step(tool=tool, action=action)) == operation


@pytest.mark.parametrize(
    ("text", "error", "general"),
    [
        ("Table 'a.b' doesn't exist", "Table 'a.b' doesn't exist", "Table '…' doesn't exist"),
        ("no column `x` at line 12, 3.5 s", "no column 'x' at line #, # s", "no column '…' at line #, # s"),
        ("near 'SELECT * FROM x' of 0x7f3a", "near '…' of #", "near '…' of #"),
        ("run 123e4567-e89b-12d3-a456-426614174000 is gone", "run # is gone", "run # is gone"),
        ("world_1 and v2 are names", "world_1 and v2 are names", "world_1 and v2 are names"),
        ("", "(no message)", "(no message)"),
        (
            "Traceback (most recent call last):\n  File \"a.py\", line 3\nKeyError: 'total'\n",
            "KeyError: 'total'",
            "KeyError: '…'",
        ),
    ],
)
def test_an_error_is_told_by_its_kind(text: str, error: str, general: str) -> None:
    assert error_of(text) == error
    assert general_error(error) == general


@given(texts)
def test_the_kind_of_any_error_is_short_and_is_its_own_kind(text: str) -> None:
    error = error_of(text)
    assert 0 < len(error) <= ERROR_CHARACTERS
    assert general_error(general_error(error)) == general_error(error)
    error.encode()


@given(steps)
def test_any_call_can_be_shown(found: EpisodeStep) -> None:
    call_text(found).encode()
