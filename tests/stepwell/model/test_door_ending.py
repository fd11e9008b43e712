"""The door for endings: every kind of outcome, checked and read back with its analysis."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import msgspec
import pytest

from stepwell.errors import InvalidInput, Rejected, TooLarge
from stepwell.model.analysis import FORMULA_VERSION, CompletionAnalysis, EpisodeSummary, Reflection, RewardScore
from stepwell.model.codec import decode_record
from stepwell.model.ending import checked_outcome, decode_ending, encode_ending
from stepwell.model.fold import EpisodeFold
from stepwell.model.limits import Limits
from stepwell.model.outcome import (
    Abstained,
    Failure,
    Interrupted,
    PartialSuccess,
    Success,
    TaskOutcome,
    outcome_kind,
)
from stepwell.model.start import EpisodeStart, encode_start

LONE = "\ud800"
WHEN = dt.datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=dt.UTC)
ANALYSIS = CompletionAnalysis(
    reward=RewardScore(
        total=1.25,
        base=1.0,
        efficiency=1.0,
        complexity_bonus=1.1,
        quality_multiplier=1.0,
        learning_bonus=0.15,
        abstention_score=0.0,
    ),
    reflection=Reflection(successes=["fast"], improvements=["NUL \0"], insights=["🪜"]),
    summary=EpisodeSummary(summary_text="It went well.", key_concepts=["trio"], key_steps=["Step 1"]),
    created_at=WHEN,
)
OUTCOMES: list[TaskOutcome] = [
    Success("works", ["client.py", "🪜\0"]),
    Success(),
    PartialSuccess("half", ["a"], ["b", ""]),
    Failure("broken", "Traceback …"),
    Failure("broken"),
    Abstained("no test can pass", 7, ["no network"]),
    Interrupted("Ctrl-C", cause="cancelled"),
    Interrupted("left", cause="abandoned"),
]


def refusal(outcome: object, limits: Limits | None = None) -> Rejected:
    """What the door says to `outcome`."""
    with pytest.raises(Rejected) as refused:
        checked_outcome(outcome, limits or Limits())
    return refused.value


BAD: list[tuple[Any, str]] = [
    (None, "outcome: must be one of Success, PartialSuccess, Failure, Abstained, Interrupted, not NoneType"),
    ("success", "outcome: must be one of Success, PartialSuccess, Failure, Abstained, Interrupted, not str"),
    (True, "outcome: must be one of Success, PartialSuccess, Failure, Abstained, Interrupted, not bool"),
    (Success, "outcome: must be one of Success, PartialSuccess, Failure, Abstained, Interrupted, not StructMeta"),
    ({"kind": "success"}, "outcome: must be one of Success, PartialSuccess, Failure, Abstained, Interrupted, not dict"),
    (
        ValueError("x"),
        "outcome: must be one of Success, PartialSuccess, Failure, Abstained, Interrupted, not ValueError",
    ),
    (Success(5), "outcome.verdict: must be text, not int"),  # type: ignore[arg-type]
    (Success(None), "outcome.verdict: must be text, not None"),  # type: ignore[arg-type]
    (Success("x", "client.py"), "outcome.artifacts: must be a list of texts, not str"),  # type: ignore[arg-type]
    (Success("x", None), "outcome.artifacts: must be a list of texts, not None"),  # type: ignore[arg-type]
    (Success("x", ["a", b"b"]), "outcome.artifacts[1]: must be text, not bytes"),  # type: ignore[list-item]
    (PartialSuccess("x", {"a": 1}), "outcome.completed: must be a list of texts, not dict"),  # type: ignore[arg-type]
    (PartialSuccess("x", [], [None]), "outcome.failed[0]: must be text, not None"),  # type: ignore[list-item]
    (Failure(ValueError("x")), "outcome.reason: must be text, not ValueError"),  # type: ignore[arg-type]
    (Failure("x", 5), "outcome.error_details: must be text, not int"),  # type: ignore[arg-type]
    (Abstained(5), "outcome.reason: must be text, not int"),  # type: ignore[arg-type]
    (Abstained("x", 1.0), "outcome.stopped_at_step: must be a whole number, not float"),  # type: ignore[arg-type]
    (Abstained("x", True), "outcome.stopped_at_step: must be a whole number, not bool"),
    (Abstained("x", -1), "outcome.stopped_at_step: -1 is below 0"),
    (
        Abstained("x", 10**5000),
        "outcome.stopped_at_step: <int> does not fit in 64 bits; pass a smaller number",
    ),
    (Abstained("x", 0, [5]), "outcome.infeasibility_signals[0]: must be text, not int"),  # type: ignore[list-item]
    (Interrupted(5), "outcome.reason: must be text, not int"),  # type: ignore[arg-type]
    (Interrupted("x", cause=None), "outcome.cause: must be text, not None"),  # type: ignore[arg-type]
    (
        Success(f"ok{LONE}"),
        "outcome.verdict: surrogates not allowed at character 2; only valid Unicode can be stored, replace it",
    ),
    (
        PartialSuccess("x", ["a", LONE]),
        "outcome.completed[1]: surrogates not allowed at character 0; only valid Unicode can be stored, replace it",
    ),
    (
        Failure("x", LONE),
        "outcome.error_details: surrogates not allowed at character 0; only valid Unicode can be stored, replace it",
    ),
]


@pytest.mark.parametrize(("outcome", "message"), BAD, ids=[ascii(message[-60:]) for _, message in BAD])
def test_what_is_no_outcome_is_refused_by_name(outcome: object, message: str) -> None:
    error = refusal(outcome)
    assert type(error) is InvalidInput
    assert str(error) == message


@pytest.mark.parametrize("character", ["x", "é", "漢", "🪜"], ids=["1 byte", "2 bytes", "3 bytes", "4 bytes"])
@pytest.mark.parametrize(
    ("path", "make"),
    [
        ("outcome.verdict", Success),
        ("outcome.artifacts[1]", lambda text: Success("", ["", text])),
        ("outcome.failed[0]", lambda text: PartialSuccess("", [], [text])),
        ("outcome.reason", Failure),
        ("outcome.error_details", lambda text: Failure("", text)),
        ("outcome.infeasibility_signals[0]", lambda text: Abstained("", 0, [text])),
        ("outcome.cause", lambda text: Interrupted("", text)),
    ],
)
def test_a_text_may_have_its_limit_in_bytes_of_utf8_and_no_more(path: str, make: Any, character: str) -> None:
    limits = Limits(text_bytes=100)
    width = len(character.encode())
    fits = character * (100 // width) + "x" * (100 % width)
    assert checked_outcome(make(fits), limits) == make(fits)
    error = refusal(make(fits + "x"), limits)
    assert type(error) is TooLarge
    assert str(error) == f"{path}: 101 bytes exceed the limit of 100 (MemoryConfig.limits)"


def read_back(outcome: TaskOutcome, analysis: CompletionAnalysis, metadata: dict[str, Any]) -> Any:
    payload = encode_ending(checked_outcome(outcome, Limits()), analysis, metadata, 5, Limits())
    return decode_ending(decode_record(payload, "a record").data)


@pytest.mark.parametrize("outcome", OUTCOMES, ids=outcome_kind)
def test_every_outcome_is_read_back_with_its_analysis(outcome: TaskOutcome) -> None:
    metadata = {"coverage": 0.9, "n": 3, "nested": {"🪜": [None, True]}}
    ending = read_back(outcome, ANALYSIS, metadata)
    assert ending.outcome == outcome
    assert type(ending.outcome) is type(outcome)
    assert (ending.reward, ending.reflection, ending.summary) == (
        ANALYSIS.reward,
        ANALYSIS.reflection,
        ANALYSIS.summary,
    )
    assert (ending.formula_version, ending.created_at, ending.metadata) == (FORMULA_VERSION, WHEN, metadata)
    assert ending.created_at.tzinfo is not None


def test_an_interrupted_run_has_neither_reward_nor_reflection() -> None:
    ending = read_back(Interrupted("x"), msgspec.structs.replace(ANALYSIS, reward=None, reflection=None), metadata={})
    assert (ending.reward, ending.reflection) == (None, None)


class Text(str):
    __slots__ = ()


class Number(float):
    __slots__ = ()


def test_an_outcome_made_of_subclasses_equals_what_is_read_back() -> None:
    """Completing again with an equal outcome must give the first result, also after reopening."""
    given = Success(Text("works"), (Text("a"), "b"))  # type: ignore[arg-type]
    checked = checked_outcome(given, Limits())
    assert checked == Success("works", ["a", "b"])
    ending = read_back(given, ANALYSIS, {"score": Number(0.5), "who": Text("me"), "pair": (1, 2)})
    assert ending.outcome == checked
    assert ending.metadata == {"score": 0.5, "who": "me", "pair": [1, 2]}


def test_the_caller_keeps_what_it_passed() -> None:
    artifacts = ["a"]
    checked = checked_outcome(Success("x", artifacts), Limits())
    artifacts.append("later")
    assert checked == Success("x", ["a"])


def test_an_ending_larger_than_a_record_is_too_large() -> None:
    with pytest.raises(TooLarge, match=r"^outcome: [\d,]+ bytes encoded exceed the limit of 1,000 a record may have$"):
        encode_ending(Success("x" * 1000), ANALYSIS, {}, 5, Limits(record_bytes=1000))


def test_metadata_with_a_lone_surrogate_is_refused_with_its_path() -> None:
    with pytest.raises(InvalidInput, match=r"^metadata\.a\[0\]: surrogates not allowed at character 0;"):
        encode_ending(Success(), ANALYSIS, {"a": [LONE]}, 5, Limits())
    with pytest.raises(InvalidInput, match=r"^metadata \(a key\): surrogates not allowed at character 0;"):
        encode_ending(Success(), ANALYSIS, {LONE: 1}, 5, Limits())


def test_numbers_of_the_analysis_keep_their_last_bit() -> None:
    odd = math.nextafter(0.1, 1)
    reward = RewardScore(
        total=odd,
        base=-0.0,
        efficiency=5e-324,
        complexity_bonus=1.7976931348623157e308,
        quality_multiplier=1 / 3,
        learning_bonus=0.1 + 0.2,
        abstention_score=1e-7,
    )
    ending = read_back(Success(), msgspec.structs.replace(ANALYSIS, reward=reward), {})
    assert repr(ending.reward) == repr(reward)


def test_an_ending_folds_into_the_episode() -> None:
    from stepwell.model.context import TaskContext

    fold = EpisodeFold("e")
    start = EpisodeStart(task="Fix it", context=TaskContext())
    fold.add(1, 1, decode_record(encode_start(start, "e", 1_000_000_000, Limits()), "a record"))
    payload = encode_ending(Failure("broken"), ANALYSIS, {"a": 1}, 3_500_000_000, Limits())
    fold.add(2, 2, decode_record(payload, "a record"))
    episode = fold.episode()
    assert (episode.status, episode.outcome, episode.outcome_metadata) == ("ended", Failure("broken"), {"a": 1})
    assert (episode.duration, episode.last_seq) == (dt.timedelta(seconds=2.5), 2)
    assert (episode.reward, episode.summary) == (ANALYSIS.reward, ANALYSIS.summary)
