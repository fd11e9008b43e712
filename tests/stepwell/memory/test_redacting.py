"""Redaction: a secret reaches no file by any call, and a redactor that fails stores nothing."""

from __future__ import annotations

from typing import Any

import pytest

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    ExecutionStep,
    Failure,
    InvalidInput,
    Limits,
    Memory,
    MemoryConfig,
    Rejected,
    StepError,
    StepSuccess,
    Success,
    TooLarge,
    default_redactor,
)
from stepwell.model.redaction import REDACTED
from tests.stepstore.log_lab import content, segments
from tests.support import SEGMENT_BYTES, open_on, step

SECRET = "ghp_" + "s3cr3t" * 6


def redacting(redact: Any = default_redactor, **settings: Any) -> MemoryConfig:
    return MemoryConfig(segment_bytes=SEGMENT_BYTES, redact=redact, **settings)


def leaky(number: int, key: str | None = None) -> ExecutionStep:
    return ExecutionStep(
        f"tool {SECRET}",
        f"use {SECRET}",
        {"a": [SECRET, {"password": "hunter2", SECRET: 1}], "n": number, "pin": {"db_password": 4711}},
        StepSuccess({"out": SECRET}) if number % 2 else StepError(SECRET),
        thought=SECRET,
        metadata={"m": SECRET},
        key=key,
    )


async def leak_everywhere(memory: Memory) -> None:
    handle = await memory.start_episode(
        f"task {SECRET}",
        episode_id="e",
        agent=SECRET,
        task_type=SECRET,
        tags=[SECRET],
        domain=SECRET,
        metadata={"x": SECRET},
    )
    await memory.start_episode("task", episode_id="other")
    await handle.log_step(leaky(1))
    await handle.log_steps([leaky(2), leaky(3)])
    handle.log_step_nowait(leaky(4))
    async with handle.step("tool", SECRET, {"x": SECRET}) as scope:
        scope.output = SECRET
    async with memory.atomic() as tx:
        tx.log_step("e", leaky(5))
    await memory.add_tags("e", [f"t-{SECRET}"])
    await memory.update_episode("e", description=SECRET, metadata={"y": SECRET})
    await memory.relate("e", "other", "follows", reason=SECRET, metadata={"z": SECRET})
    await memory.checkpoint("e", SECRET, note=SECRET)
    await handle.complete(Failure(SECRET, SECRET), metadata={"w": [SECRET]})


async def test_a_secret_reaches_no_file_by_any_call() -> None:
    files = MemoryFileSystem()
    async with open_on(files, redacting()) as memory:
        await leak_everywhere(memory)
        assert memory.stats().redacted > 50
        episode = await memory.get_episode("e")
        first = episode.steps[0]
        assert first.parameters == {
            "a": [REDACTED, {"password": REDACTED, REDACTED: 1}],
            "n": 1,
            "pin": {"db_password": REDACTED},
        }
        assert (first.tool, first.action, first.thought) == (f"tool {REDACTED}", f"use {REDACTED}", REDACTED)
        assert (first.result, episode.steps[1].result) == (StepSuccess({"out": REDACTED}), StepError(REDACTED))
        assert episode.tags == [REDACTED, f"t-{REDACTED}"]
        assert episode.outcome == Failure(REDACTED, REDACTED)
    written = b"".join(content(files, path) for path in segments(files))
    assert b"hunter2" not in written
    assert SECRET.encode() not in written
    assert len(written) > 2000


async def test_without_a_redactor_everything_is_stored_as_it_is() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await leak_everywhere(memory)
        assert (await memory.get_episode("e")).steps[0].parameters == leaky(1).parameters
        assert memory.stats().redacted == 0


async def test_what_was_redacted_may_be_repeated() -> None:
    files = MemoryFileSystem()
    for _ in range(2):
        async with open_on(files, redacting()) as memory:
            handle = await memory.start_episode(f"task {SECRET}", episode_id="e")
            first = await handle.log_step(leaky(1, key="k"))
            assert first.seq == 2
            assert await handle.log_step(leaky(1, key="k")) == first
            async with memory.atomic() as tx:
                tx.log_step("e", leaky(1, key="k"))
    async with open_on(files, redacting()) as memory:
        for _ in range(2):
            await memory.complete_episode("e", Success(SECRET))
        assert (await memory.get_episode("e")).last_seq == 3


@pytest.mark.parametrize("redact", [lambda path, text: 1 / 0, lambda path, text: None], ids=["raises", "no text"])
async def test_a_redactor_that_fails_stores_nothing_and_tells_nothing(redact: Any) -> None:
    broken = [False]

    def redactor(path: str, text: str) -> Any:
        return redact(path, text) if broken[0] else text

    async with open_on(MemoryFileSystem(), redacting(redactor)) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await memory.start_episode("task", episode_id="other")
        broken[0] = True
        calls: list[Any] = [
            lambda: handle.log_step(leaky(1)),
            lambda: handle.log_steps([leaky(1), leaky(2)]),
            lambda: memory.start_episode("task"),
            lambda: handle.complete(Success("well")),
            lambda: memory.add_tags("e", ["x"]),
            lambda: memory.update_episode("e", description="x"),
            lambda: memory.relate("e", "other", "follows", reason="x"),
            lambda: memory.checkpoint("e", "x"),
        ]
        for call in calls:
            with pytest.raises(Rejected, match="redactor of MemoryConfig") as caught:
                await call()
            assert SECRET not in str(caught.value)
        with pytest.raises(Rejected):
            handle.log_step_nowait(leaky(1))
        async with memory.atomic() as tx:
            with pytest.raises(Rejected):
                tx.log_step("e", leaky(1))
        broken[0] = False
        assert memory.stats().records == 2
        assert (await handle.log_step(step(1))).seq == 2


async def test_what_a_redactor_makes_is_checked_like_anything_else() -> None:
    limits = Limits(text_bytes=20)
    config = redacting(lambda path, text: text.replace("long", "x" * 30).replace("bad", "\ud800"), limits=limits)
    async with open_on(MemoryFileSystem(), config) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        for word, error in (("long", TooLarge), ("bad", InvalidInput)):
            with pytest.raises(error):
                await handle.log_step(ExecutionStep("tool", word))
            with pytest.raises(error):
                await handle.complete(Success(word))
        assert (await handle.log_step(step(1))).seq == 2
    for redact in (5, test_without_a_redactor_everything_is_stored_as_it_is):
        with pytest.raises(InvalidInput, match="redact"):
            MemoryConfig(redact=redact)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path",
    [
        *(
            "step.parameters.password",
            "step.parameters.api_key",
            "step.parameters.API-Key",
            "step.parameters.dbPassword",
        ),
        *("step.parameters.x.secret.deep.y", "step.parameters.tokens[3].token", "metadata.Authorization"),
        *("step.parameters.private_key[0]", "step.parameters.accessToken"),
    ],
)
def test_a_name_that_says_it_is_secret_hides_what_is_under_it(path: str) -> None:
    assert default_redactor(path, "anything, ü") == REDACTED


@pytest.mark.parametrize("path", ["step.parameters.max_tokens", "step.parameters.secretary", "step.action", "task"])
def test_other_names_hide_nothing(path: str) -> None:
    assert default_redactor(path, "an ordinary text, with sk-words and tokens: 15 ü") == (
        "an ordinary text, with sk-words and tokens: 15 ü"
    )


@pytest.mark.parametrize(
    "secret",
    [
        "sk-" + "a1B2" * 8,
        "sk-proj-" + "a1B2" * 8,
        "sk-ant-api03-" + "a1B2_" * 8,
        "sk_live_" + "a1B2" * 6,
        "sk_" + "a1b2" * 12,
        "hf_" + "aBcD" * 8,
        "npm_" + "a1B2" * 9,
        "pypi-" + "AgEI" * 14,
        "xapp-1-" + "A1B2" * 4,
        "github_pat_" + "a1B2" * 8,
        "glpat-" + "a1B2" * 5,
        "xoxb-" + "1234-" * 4,
        "AKIA" + "A1B2" * 4,
        "AIza" + "a1B2c" * 7,
        "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",
    ],
)
def test_the_usual_tokens_are_found_in_the_middle_of_a_text(secret: str) -> None:
    assert default_redactor("step.action", f"größe ({secret}), and on") == f"größe ({REDACTED}), and on"


def test_keys_bearer_tokens_and_passwords_in_addresses_are_found() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----"
    assert default_redactor("x", f"a {key} b") == f"a {REDACTED} b"
    assert default_redactor("x", "-----BEGIN PRIVATE KEY-----\ncut off") == REDACTED
    assert default_redactor("x", "Bearer abcdefghijklmnop==") == f"Bearer {REDACTED}"
    assert default_redactor("x", "postgres://ann:pw@host/db") == f"postgres://{REDACTED}@host/db"
    assert default_redactor("x", "redis://:pw@host/0") == f"redis://{REDACTED}@host/0"
    assert default_redactor("x", "https://host:80/a@b") == "https://host:80/a@b"
    block = key.replace("RSA PRIVATE KEY", "PGP PRIVATE KEY BLOCK")
    assert default_redactor("x", f"a {block} b") == f"a {REDACTED} b"
    assert default_redactor("x", "-H 'Authorization: Basic YW5uOnB3'") == f"-H 'Authorization: Basic {REDACTED}'"


@pytest.mark.parametrize(
    "text",
    [
        "ALTER TABLE orders ADD CONSTRAINT pk_sales_order_detail_id PRIMARY KEY (id)",
        "JOIN dim_customer USING (sk_customer_dimension_key)",
        "pip install sk-learn-classifier-comparison",
        "Basic understanding of a task, and a Bearer of news",
        "hf_hub_download and npm_config_registry",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert default_redactor("step.action", text) == text


async def test_keys_that_become_the_same_are_told_apart() -> None:
    async with open_on(MemoryFileSystem(), redacting()) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.log_step(ExecutionStep("tool", "", {SECRET: 1, SECRET + "x": 2, "plain": None}))
        (found,) = (await handle.get()).steps
        assert found.parameters == {REDACTED: 1, f"{REDACTED} (2)": 2, "plain": None}
