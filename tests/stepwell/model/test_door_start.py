"""The door for starting an episode: the task, its context, its tags, and the ids; and `Limits` itself."""

from __future__ import annotations

import collections
import enum
import math
from typing import Any

import pytest

from stepwell.errors import InvalidInput, Rejected, TooLarge
from stepwell.model.codec import decode_record
from stepwell.model.context import TaskContext
from stepwell.model.fold import EpisodeFold
from stepwell.model.ids import checked_id, new_episode_id, stream_id
from stepwell.model.limits import Limits
from stepwell.model.start import EpisodeStart, checked_start, decode_start, encode_start

LONE = "\ud800"
HUGE = 10**5000


def start(*, limits: Limits | None = None, **arguments: Any) -> EpisodeStart:
    defaults: dict[str, Any] = {
        "task": "Fix it",
        "context": None,
        "context_fields": {},
        "task_type": "other",
        "agent": "",
        "parent": None,
        "thread": None,
        "metadata": None,
    }
    return checked_start(**(defaults | arguments), limits=limits or Limits())


def stored(checked: EpisodeStart, limits: Limits | None = None) -> EpisodeStart:
    """What is read back of a start."""
    return decode_start(decode_record(encode_start(checked, "an id", 1, limits or Limits()), "a record").data)


def refusal(*, limits: Limits | None = None, **arguments: Any) -> Rejected:
    """What the door says, at the check or at the encoding that follows it at once."""
    with pytest.raises(Rejected) as refused:
        stored(start(limits=limits, **arguments), limits)
    return refused.value


def context(**fields: Any) -> dict[str, Any]:
    """Arguments with these fields in a `TaskContext`, which checks nothing itself."""
    return {"context": TaskContext(**fields)}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"task": None}, "task: must be text, not None"),
    ({"task": 5}, "task: must be text, not int"),
    ({"task": b"Fix it"}, "task: must be text, not bytes"),
    ({"task": ["Fix it"]}, "task: must be text, not list"),
    ({"task": ""}, "task: must not be empty"),
    ({"task": " \n\t\u2003"}, "task: must not be empty"),
    (
        {"task": f"ab{LONE}"},
        "task: surrogates not allowed at character 2; only valid Unicode can be stored, replace it",
    ),
    ({"task_type": ""}, "task_type: must not be empty"),
    ({"task_type": 5}, "task_type: must be text, not int"),
    ({"agent": None}, "agent: must be text, not None"),
    ({"agent": LONE}, "agent: surrogates not allowed at character 0; only valid Unicode can be stored, replace it"),
    ({"metadata": []}, "metadata: must be a dict with text keys, not list"),
    ({"metadata": "x"}, "metadata: must be a dict with text keys, not str"),
    ({"metadata": {1: 2}}, "metadata: the key 1 is int; keys must be text"),
    ({"metadata": {"a": [math.nan]}}, "metadata.a[0]: nan is not a JSON number; use null or text"),
    ({"metadata": {"a": b""}}, "metadata.a: bytes are not JSON; encode them as text (base64) or store them elsewhere"),
    (
        {"metadata": {"a": [LONE]}},
        "metadata.a[0]: surrogates not allowed at character 0; only valid Unicode can be stored, replace it",
    ),
    (
        {"metadata": {LONE: 1}},
        "metadata (a key): surrogates not allowed at character 0; only valid Unicode can be stored, replace it",
    ),
    ({"parent": 5}, "parent: an id is text, not int"),
    ({"parent": ""}, "parent: an id must not be empty"),
    ({"thread": b"t"}, "thread: an id is text, not bytes"),
    ({"thread": "a\0b"}, "thread: an id must not be text with NUL characters"),
    ({"context": {"language": "python"}}, "context: must be a TaskContext, not dict"),
    ({"context": "python"}, "context: must be a TaskContext, not str"),
    ({"context": TaskContext}, "context: must be a TaskContext, not StructMeta"),
    (
        {"context_fields": {"langauge": "python"}},
        "langauge: not an argument of an episode; a context has language, framework, domain, complexity, tags",
    ),
    (
        {"context_fields": {"domain": "x", "zeal": 1, "color": 2}},
        "color: not an argument of an episode; a context has language, framework, domain, complexity, tags",
    ),
    ({"context_fields": {"language": 5}}, "context.language: must be text, not int"),
    (context(framework=["trio"]), "context.framework: must be text, not list"),
    (context(domain=None), "context.domain: must be text, not None"),
    (
        context(domain=LONE),
        "context.domain: surrogates not allowed at character 0; only valid Unicode can be stored, replace it",
    ),
    (context(complexity="hard"), "context.complexity: must be one of simple, moderate, complex, not 'hard'"),
    (context(complexity=None), "context.complexity: must be one of simple, moderate, complex, not None"),
    (context(complexity=["simple"]), "context.complexity: must be one of simple, moderate, complex, not ['simple']"),
    (context(complexity=HUGE), "context.complexity: must be one of simple, moderate, complex, not <int>"),
    (context(tags="net"), "context.tags: must be a list of texts, not str"),
    (context(tags={"net"}), "context.tags: must be a list of texts, not set"),
    (context(tags=None), "context.tags: must be a list of texts, not NoneType"),
    (context(tags=["ok", 5]), "context.tags[1]: a tag is text, not int"),
    (context(tags=["ok", None]), "context.tags[1]: a tag is text, not NoneType"),
    (context(tags=[""]), "context.tags[0]: a tag must not be empty or hold control characters"),
    (context(tags=["ok", " \t "]), "context.tags[1]: a tag must not be empty or hold control characters"),
    (context(tags=["a\nb"]), "context.tags[0]: a tag must not be empty or hold control characters"),
    (context(tags=["a\0b"]), "context.tags[0]: a tag must not be empty or hold control characters"),
    (context(tags=["a\x7fb"]), "context.tags[0]: a tag must not be empty or hold control characters"),
    (
        {"context_fields": {"tags": ["a\x1b[31m"]}},
        "context.tags[0]: a tag must not be empty or hold control characters",
    ),
    (
        context(tags=["ok", LONE]),
        "context.tags[1]: surrogates not allowed at character 0; only valid Unicode can be stored, replace it",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[ascii(message[:60]) for _, message in REFUSED])
def test_a_start_that_cannot_be_stored_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    error = refusal(**arguments)
    assert type(error) is InvalidInput
    assert str(error) == message


@pytest.mark.parametrize("character", ["x", "é", "漢", "🪜"], ids=["1 byte", "2 bytes", "3 bytes", "4 bytes"])
@pytest.mark.parametrize(
    ("path", "limit", "arguments"),
    [
        ("task", 10_000, lambda text: {"task": text}),
        ("task_type", 1000, lambda text: {"task_type": text}),
        ("agent", 1000, lambda text: {"agent": text}),
        ("context.language", 1000, lambda text: context(language=text)),
        ("context.framework", 1000, lambda text: context(framework=text)),
        ("context.domain", 1000, lambda text: {"context_fields": {"domain": text}}),
        ("context.tags[1]", 100, lambda text: context(tags=["ok", text])),
        ("parent", 200, lambda text: {"parent": text}),
        ("thread", 200, lambda text: {"thread": text}),
    ],
)
def test_a_text_may_have_its_limit_in_bytes_of_utf8_and_no_more(
    path: str, limit: int, arguments: Any, character: str
) -> None:
    width = len(character.encode())
    fits = character * (limit // width) + "x" * (limit % width)
    checked = start(**arguments(fits))
    assert stored(checked) == checked
    error = refusal(**arguments(fits + "x"))
    assert type(error) is TooLarge
    assert str(error).startswith(f"{path}: {limit + 1:,} bytes exceed the ")


def test_the_limits_of_the_memory_count() -> None:
    limits = Limits(task_bytes=10, tag_bytes=5)
    start(task="x" * 10, **context(tags=["  12345  "]), limits=limits)
    assert str(refusal(task="x" * 11, limits=limits)) == "task: 11 bytes exceed the limit of 10 (MemoryConfig.limits)"
    assert str(refusal(**context(tags=["123456"]), limits=limits)) == (
        "context.tags[0]: 6 bytes exceed the limit of 5 a tag may have"
    )


def test_a_start_larger_than_a_record_is_too_large() -> None:
    error = refusal(metadata={"v": "x" * 1000}, limits=Limits(record_bytes=1000))
    assert type(error) is TooLarge
    assert str(error).startswith("episode: 1,")


def test_keywords_win_over_the_context_and_tags_are_trimmed() -> None:
    checked = start(
        context=TaskContext(language="rust", framework="tokio", tags=["old"]),
        context_fields={"language": "python", "tags": ("  net ", "async-io")},
    )
    assert checked.context == TaskContext(language="python", framework="tokio", tags=["net", "async-io"])


def test_the_caller_keeps_what_it_passed() -> None:
    tags, metadata = ["net"], {"a": [1]}
    checked = start(context_fields={"tags": tags}, metadata=metadata)
    tags.append("later")
    metadata["a"].append(2)
    assert checked.context.tags == ["net"]
    assert checked.metadata == {"a": [1]}


class Text(str):
    __slots__ = ()


class Number(float):
    __slots__ = ()


class Level(enum.IntEnum):
    HIGH = 3


class Complexity(enum.StrEnum):
    COMPLEX = "complex"


def test_what_is_checked_equals_what_is_read_back_whatever_it_was_made_of() -> None:
    """A start with the same arguments must find the same start in the log."""
    checked = start(
        task=Text("Fix it"),
        task_type=Text("code"),
        agent=Text("coder"),
        parent=Text("p"),
        thread=Text("t"),
        context=TaskContext(domain=Text("ci"), complexity=Complexity.COMPLEX, tags=(Text("net"),)),  # type: ignore[arg-type]
        metadata={
            "tuple": (1, (2,)),
            "text": Text("t"),
            "number": Number(0.5),
            "level": Level.HIGH,
            "ordered": collections.OrderedDict(b=(), a=None),
            Text("key"): [True, False],
            "big": 2**100,
        },
    )
    read = stored(checked)
    assert read == checked
    assert read.metadata == {
        "tuple": [1, [2]],
        "text": "t",
        "number": 0.5,
        "level": 3,
        "ordered": {"b": [], "a": None},
        "key": [True, False],
        "big": 2**100,
    }
    assert read.context == TaskContext(domain="ci", complexity="complex", tags=["net"])


def test_the_first_record_names_the_stream_and_folds_into_the_episode() -> None:
    checked = start(agent="coder", metadata={"a": 1}, parent="p", thread="t", context_fields={"tags": ["net"]})
    record = decode_record(encode_start(checked, "run/🪜", 1_700_000_000_000_000_000, Limits()), "a record")
    assert (record.kind, record.meta) == ("started", {"stream": "episode", "id": "run/🪜"})
    fold = EpisodeFold("run/🪜")
    fold.add(1, 1, record)
    episode = fold.episode()
    assert (episode.task_description, episode.agent, episode.metadata) == ("Fix it", "coder", {"a": 1})
    assert (episode.parent, episode.thread, episode.tags) == ("p", "t", ["net"])
    assert (episode.status, episode.last_seq, episode.steps) == ("open", 1, [])


# ---- ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "episode_id: an id is text, not NoneType"),
        (5, "episode_id: an id is text, not int"),
        (b"abc", "episode_id: an id is text, not bytes"),
        ("", "episode_id: an id must not be empty"),
        ("a\0", "episode_id: an id must not be text with NUL characters"),
        (f"a{LONE}", "episode_id: surrogates not allowed at character 1; an id must be valid Unicode"),
    ],
)
def test_what_is_no_id_is_refused(value: object, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked_id(value)
    assert type(refused.value) is InvalidInput
    assert str(refused.value) == message


@pytest.mark.parametrize("character", ["x", "é", "漢", "🪜"])
def test_an_id_may_have_200_bytes(character: str) -> None:
    width = len(character.encode())
    fits = character * (200 // width) + "x" * (200 % width)
    assert checked_id(fits) == fits
    with pytest.raises(TooLarge, match=r"^episode_id: 201 bytes exceed the 200 an id may have$"):
        checked_id(fits + "x")


@pytest.mark.parametrize("text", [" ", "a b", "../../etc", "a\nb", "🪜", "é", "e\u0301"])
def test_an_id_is_the_callers_text_unchanged(text: str) -> None:
    assert checked_id(text) == text
    kept = checked_id(Text(text))
    assert (kept, type(kept)) == (text, str)


def test_generated_ids_are_valid_distinct_and_in_order() -> None:
    made = [new_episode_id() for _ in range(1000)]
    assert all(checked_id(one) == one for one in made)
    assert len(set(made)) == 1000
    assert made == sorted(made)


def test_names_on_disk_tell_kinds_and_ids_apart() -> None:
    names = {stream_id(kind, text) for kind in ("episode", "thread") for text in ("a", "b", "episode", "é", "e\u0301")}
    assert len(names) == 10
    assert all(len(name) == 16 for name in names)
    assert stream_id("episode", "a").hex() == "5758412c9633a059f7bbb439c9663dd2"  # printf 'episode\0a' | b2sum -l 128


# ---- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", Limits.__struct_fields__)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "0 is below 1"),
        (-1, "-1 is below 1"),
        ("1000", "must be a whole number, not str"),
        (1e6, "must be a whole number, not float"),
        (True, "must be a whole number, not bool"),
        (None, "must be a whole number, not None"),
        (HUGE, "<int> does not fit in 64 bits; pass a smaller number"),
    ],
    ids=["zero", "negative", "text", "float", "bool", "none", "huge"],
)
def test_a_limit_is_a_whole_number_of_at_least_1(name: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Limits(**{name: value})
    assert str(refused.value) == f"limits.{name}: {message}"


def test_an_unknown_limit_is_refused() -> None:
    with pytest.raises(TypeError, match="text_byte"):
        Limits(text_byte=5)  # type: ignore[call-arg]
