"""Compressed and encrypted memories: they read back the same, tell nothing on disk, and forget for good."""

from __future__ import annotations

import errno
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from stepstore.journal import Batch, SegmentLogJournal
from stepstore.log.files import FileSystem
from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    START,
    BatchConfig,
    EpisodeUnavailable,
    Event,
    ExecutionStep,
    Gap,
    InvalidInput,
    KeyProvider,
    LocalKeyProvider,
    Memory,
    MemoryConfig,
    NotFound,
    OutcomeUnknown,
    StepSuccess,
    Success,
    TaskContext,
    Unavailable,
    open_memory,
)
from stepwell.model.ids import stream_id
from tests.crash.reseal import relink
from tests.stepstore.log_lab import content, put, segments, tree
from tests.support import HookedFileSystem, force_into_log, open_on, step

MASTER = b"a master key of 32 bytes for all"
E = stream_id("episode", "e")
SECRET = "the-very-secret-thing"


def config(
    provider: KeyProvider | None = None, *, zstd: bool = False, batch: BatchConfig | None = None
) -> MemoryConfig:
    return MemoryConfig(
        segment_bytes=64 * 1024,
        key_provider=provider,
        compression="zstd" if zstd else "none",
        batch=batch or BatchConfig(),
    )


def encrypted(*, zstd: bool = False) -> MemoryConfig:
    return config(LocalKeyProvider(MASTER), zstd=zstd)


class Provider:
    """A key provider that fails when told to, and counts."""

    def __init__(self, error: Exception | None = None) -> None:
        self._inner = LocalKeyProvider(MASTER)
        self.error = error or ConnectionError("the key service does not answer")
        self.wraps = self.unwraps = True
        self.asked = 0

    def wrap(self, key: bytes) -> bytes:
        self.asked += 1
        if not self.wraps:
            raise self.error
        return self._inner.wrap(key)

    def unwrap(self, wrapped: bytes) -> bytes:
        self.asked += 1
        if not self.unwraps:
            raise self.error
        return self._inner.unwrap(wrapped)


async def tell_secrets(memory: Memory, name: str = "e") -> None:
    """An episode with the secret in every place where a text can stand."""
    handle = await memory.start_episode(
        f"task: {SECRET}",
        episode_id=name,
        context=TaskContext(language=SECRET, tags=[SECRET]),
        agent=SECRET,
        metadata={SECRET: SECRET},
    )
    for number in range(60):
        await handle.log_step(
            ExecutionStep(
                f"{SECRET} tool",
                f"{SECRET} action {number}",
                {SECRET: [SECRET, number]},
                StepSuccess(f"{SECRET} and much more text, " * 20),
                thought=SECRET,
                metadata={SECRET: SECRET},
                key=f"{SECRET}-{number}",
            )
        )
    await handle.complete(Success(SECRET), metadata={SECRET: 1})


def find_on_disk(path: Path, needle: bytes) -> list[str]:
    return [item.name for item in path.rglob("*") if item.is_file() and needle in item.read_bytes()]


# ---- what is on disk, and what reads back ----------------------------------------------------------------------------


@pytest.mark.parametrize("zstd", [False, True])
async def test_nothing_of_the_text_is_on_disk_in_clear(tmp_path: Path, zstd: bool) -> None:
    for opening in range(2):
        async with open_memory(tmp_path / "m", config=encrypted(zstd=zstd)) as memory:
            await tell_secrets(memory, f"{SECRET}-{opening}")
            await memory._journal.rotate()
            await memory.start_episode(f"left open: {SECRET}", episode_id=f"open-{SECRET}-{opening}")
        assert find_on_disk(tmp_path / "m", SECRET.encode()) == []
        assert find_on_disk(tmp_path / "m", SECRET[:8].encode()) == []
    assert len([item for item in (tmp_path / "m").rglob("*") if item.is_file()]) > 5
    async with open_memory(tmp_path / "plain", config=config()) as memory:
        await tell_secrets(memory)
    assert find_on_disk(tmp_path / "plain", SECRET.encode())  # the search finds what is there


async def test_every_combination_reads_back_the_same_and_compression_makes_it_smaller() -> None:
    sizes: dict[tuple[bool, bool], int] = {}
    found: list[object] = []
    for encrypts, zstd in itertools.product([False, True], repeat=2):
        files = MemoryFileSystem()
        settings = config(LocalKeyProvider(MASTER) if encrypts else None, zstd=zstd)
        async with open_on(files, settings) as memory:
            await tell_secrets(memory)
            sizes[encrypts, zstd] = memory.stats().bytes_written
        for read_only in (False, True):
            async with open_on(files, settings, read_only=read_only) as memory:
                episode = await memory.get_episode("e")
                found.append(
                    [
                        (item.action, item.parameters, item.result, item.thought, item.metadata, item.key)
                        for item in episode.steps
                    ]
                )
                assert (episode.outcome, episode.task_description) == (Success(SECRET), f"task: {SECRET}")
                async with memory.follow(START) as events:
                    kinds = [(await events.receive()).kind for _ in range(62)]  # type: ignore[union-attr]
                assert kinds == ["started", *["step"] * 60, "ended"]
    assert len(found[0]) == 60  # type: ignore[arg-type]
    assert all(one == found[0] for one in found)
    for encrypts in (False, True):
        assert sizes[encrypts, True] * 2 < sizes[encrypts, False]


async def test_one_memory_may_be_written_in_every_way_in_turn() -> None:
    files = MemoryFileSystem()
    provider = LocalKeyProvider(MASTER)
    ways = [config(), config(zstd=True), config(provider), config(provider, zstd=True), config(), config(provider)]
    for number, settings in enumerate(ways):
        async with open_on(files, settings) as memory:
            await (await memory.start_episode("task", episode_id=f"e{number}")).log_step(step(number))
            if settings.key_provider is not None:
                for earlier in range(number):  # also those that began in clear
                    await memory.log_step(f"e{earlier}", step(number))
    async with open_on(files, config(provider)) as memory:
        for number in range(len(ways)):
            expected = [number, *[later for later in range(number + 1, len(ways)) if ways[later].key_provider]]
            actions = [item.action for item in (await memory.get_episode(f"e{number}")).steps]
            assert actions == [f"action {n}" for n in expected]


async def test_an_unfit_provider_and_an_unknown_compression_are_refused() -> None:
    for bad in (5, object(), b"key"):
        with pytest.raises(InvalidInput, match="key_provider"):
            MemoryConfig(key_provider=bad)  # type: ignore[arg-type]
    for bad in ("gzip", "", None, True):
        with pytest.raises(InvalidInput, match="compression"):
            MemoryConfig(compression=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("library", "settings", "extra"),
    [
        ("zstandard", lambda: config(zstd=True), "zstd"),
        ("cryptography.hazmat.primitives.ciphers.aead", encrypted, "encryption"),
    ],
)
async def test_without_the_library_opening_says_which_extra_is_missing_and_keeps_no_lock(
    monkeypatch: pytest.MonkeyPatch, library: str, settings: Callable[[], MemoryConfig], extra: str
) -> None:
    files, wanted = MemoryFileSystem(), settings()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, library, None)
        for _ in range(2):
            with pytest.raises(InvalidInput, match=rf"stepwell\[{extra}\]"):
                await open_on(files, wanted).__aenter__()
    async with open_on(files, wanted) as memory:
        await memory.start_episode("task")


# ---- without the provider, or with another ---------------------------------------------------------------------------


async def half_encrypted() -> MemoryFileSystem:
    """A memory with the episodes "clear" and "e", which is encrypted."""
    files = MemoryFileSystem()
    async with open_on(files, config()) as memory:
        await (await memory.start_episode("task", episode_id="clear")).log_step(step(1))
    async with open_on(files, encrypted()) as memory:
        await (await memory.start_episode("task", episode_id="e")).log_step(step(1))
        await (await memory.start_episode("task", episode_id="f")).log_step(step(1))
    return files


@pytest.mark.parametrize("other", [None, LocalKeyProvider(b"another master key of 32 bytes..")])
async def test_without_the_right_provider_only_the_encrypted_episodes_are_unavailable(
    other: KeyProvider | None, autojump_clock: trio.testing.MockClock
) -> None:
    files = await half_encrypted()
    async with open_on(files, config(other)) as memory:
        began = trio.current_time()
        for call in (
            lambda: memory.get_episode("e"),
            lambda: memory.get_episode("e", partial=True),
            lambda: anext(memory.events("e")),
            lambda: memory.log_step("e", step(2)),
            lambda: memory.complete_episode("e", Success()),
            lambda: memory.resume("e"),
            lambda: memory.abandon("e"),
            lambda: memory.start_episode("task", episode_id="e"),
        ):
            with pytest.raises(Unavailable, match=r"'e'.*key") as caught:
                await call()
            assert not isinstance(caught.value, EpisodeUnavailable)
        assert trio.current_time() - began < 1  # nobody waits for a key that will not come
        assert memory._supervisor.cells == {}
        # Everything else works.
        assert [item.action for item in (await memory.get_episode("clear")).steps] == ["action 1"]
        assert [name async for name in memory.episode_ids()] == ["clear"]
        assert [item.episode_id for item in await memory.open_episodes()] == ["clear"]
        if other is None:  # with another one nothing may be written: nobody could read it
            await (await memory.log_step("clear", step(2))).wait_durable()
            await (await memory.start_episode("task", episode_id="new")).complete(Success())
        async with memory.follow() as events:
            for expected in ("started", "step"):
                event = await events.receive()
                assert isinstance(event, Event)
                assert (event.stream, event.kind) == ("clear", expected)
            for _ in range(2):
                with pytest.raises((Unavailable, InvalidInput), match="key"):
                    await events.receive()
    async with open_on(files, encrypted()) as memory:
        assert len((await memory.get_episode("e")).steps) == 1
        assert (await memory.log_step("e", step(2))).seq == 3


async def test_with_another_master_key_nothing_is_written_that_nobody_could_read() -> None:
    files = await half_encrypted()
    async with open_on(files, config(LocalKeyProvider(b"another master key of 32 bytes.."))) as memory:
        with pytest.raises(InvalidInput, match="master key"):
            await memory.start_episode("task", episode_id="new")
        with pytest.raises(NotFound):
            await memory.get_episode("new")


async def test_an_encrypted_episode_can_be_deleted_without_the_provider() -> None:
    files = await half_encrypted()
    async with open_on(files, config()) as memory:
        await memory.delete_episode("e")
        with pytest.raises(NotFound):
            await memory.get_episode("e")
    async with open_on(files, encrypted()) as memory:
        with pytest.raises(NotFound):
            await memory.get_episode("e")
        assert len((await memory.get_episode("f")).steps) == 1
        assert list(keys_of(memory)) == [stream_id("episode", "f")]
        async with memory.follow(kinds=["deleted"]) as events:
            event = await events.receive()
            assert isinstance(event, Event)
            assert event.data == {}


# ---- deletion destroys the key ---------------------------------------------------------------------------------------


def keys_of(memory: Memory) -> dict[bytes, bytes]:
    """The wrapped keys by stream."""
    journal = memory._journal
    assert isinstance(journal, SegmentLogJournal)
    assert journal._log.keys is not None
    return dict(journal._log.keys._wrapped)


def found_in(files: FileSystem, needle: bytes) -> list[str]:
    return [path for path, data in tree(files).items() if data is not None and needle in data]


async def test_deleting_destroys_the_key_and_no_old_copy_of_the_log_can_be_read() -> None:
    files = MemoryFileSystem()
    async with open_on(files, encrypted(zstd=True)) as memory:
        await tell_secrets(memory, "e")
        await tell_secrets(memory, "f")
        key = keys_of(memory)[E]
    backup = {path: data for path, data in tree(files).items() if data is not None and path.endswith(".seg")}
    assert found_in(files, key)
    async with open_on(files, encrypted(zstd=True)) as memory:
        assert len((await memory.get_episode("e")).steps) == 60
        await memory.delete_episode("e")
        assert E not in keys_of(memory)
        assert found_in(files, key) == []
        assert len((await memory.get_episode("f")).steps) == 60
    assert found_in(files, key) == []
    # Somebody puts the segments back that were copied before the deletion.
    for path in segments(files):
        files.unlink(path)
    for path in list(tree(files)):
        if path.endswith((".idx", ".MANIFEST")) or "/MANIFEST-" in path:
            files.unlink(path)
    for path, data in backup.items():
        put(files, path, data)
    async with open_on(files, encrypted(zstd=True)) as memory:
        for partial in (False, True):
            with pytest.raises((EpisodeUnavailable, NotFound)):
                await memory.get_episode("e", partial=partial)
        assert len((await memory.get_episode("f")).steps) == 60
        async with memory.follow() as events:
            while not isinstance(event := await events.receive(), Gap):
                assert event.stream == "f"


async def test_an_iteration_over_an_episode_that_is_deleted_meanwhile_says_so() -> None:
    async with open_on(MemoryFileSystem(), encrypted()) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        for start in range(0, 600, 50):
            await handle.log_steps([step(n) for n in range(start, start + 50)])
            await handle.flush()
        events = memory.events("e")
        await anext(events)
        await memory.delete_episode("e")
        with pytest.raises(NotFound):
            async for _ in events:
                pass


@pytest.mark.parametrize("call", ["create", "write", "datasync", "rename", "sync_directory", "unlink"])
async def test_a_key_that_could_not_be_destroyed_is_told_and_destroyed_at_the_next_attempt(call: str) -> None:
    disk, failing = MemoryFileSystem(), False

    def hook(operation: str, path: str) -> None:
        if failing and operation == call and "/keys" in path:
            raise OSError(errno.EIO, "injected", path)

    async with open_on(HookedFileSystem(disk, hook), encrypted()) as memory:
        for name in ("e", "f"):
            await (await memory.start_episode("task", episode_id=name)).log_step(step(1))
        key = keys_of(memory)[E]
        failing = True
        for _ in range(2):
            with pytest.raises(OutcomeUnknown, match="key"):
                await memory.delete_episode("e")
            with pytest.raises(NotFound):
                await memory.get_episode("e")
            assert len((await memory.get_episode("f")).steps) == 1
        failing = False
        await memory.delete_episode("e")
        assert found_in(disk, key) == []
        assert (await memory.log_step("f", step(2))).seq == 3
    async with open_on(disk, encrypted()) as memory:
        assert len((await memory.get_episode("f")).steps) == 2


@pytest.mark.parametrize("stop_at", range(8))
async def test_a_crash_between_the_deletion_and_the_end_of_its_key_is_made_good_at_the_next_opening(
    stop_at: int,
) -> None:
    """The disk as a power cut leaves it in front of each call that destroys the key."""
    disk = MemoryFileSystem()
    survivors: list[MemoryFileSystem] = []
    watching = False

    def hook(operation: str, path: str) -> None:
        if watching and "/keys" in path:
            survivors.append(disk.durable_copy())

    async with open_on(HookedFileSystem(disk, hook), encrypted()) as memory:
        for name in ("e", "f"):
            await (await memory.start_episode("task", episode_id=name)).log_step(step(1))
            await memory.flush()
        key = keys_of(memory)[E]
        watching = True
        await memory.delete_episode("e")
        watching = False
    assert len(survivors) >= 6
    survivor = survivors[min(stop_at, len(survivors) - 1)]
    if stop_at == 0:
        assert found_in(survivor, key)
    for settings in (config(), encrypted()):  # the provider is not needed for it
        async with open_on(survivor, settings) as memory:
            assert E not in keys_of(memory)
            assert found_in(survivor, key) == []
            with pytest.raises(NotFound):
                await memory.get_episode("e")
    async with open_on(survivor, encrypted()) as memory:
        assert len((await memory.get_episode("f")).steps) == 1


# ---- a provider that fails -------------------------------------------------------------------------------------------

FAILURES = [ConnectionError("the key service does not answer"), NotFound("no such key"), Unavailable("not today")]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_a_provider_that_cannot_wrap_costs_the_new_episode_only(error: Exception) -> None:
    files, provider = MemoryFileSystem(), Provider(error)
    async with open_on(files, config(provider)) as memory:
        old = await memory.start_episode("task", episode_id="old")
        provider.wraps = False
        with trio.fail_after(100):
            for _ in range(2):
                with pytest.raises(Unavailable, match=r"key provider|not today"):
                    await memory.start_episode("task", episode_id="new")
            with pytest.raises(NotFound):
                await memory.get_episode("new")
            await (await old.log_step(step(1))).wait_durable()
            provider.wraps = True
            handle = await memory.start_episode("task", episode_id="new")
            await (await handle.log_step(step(1))).wait_durable()
            await old.complete(Success())
    async with open_on(files, config(provider)) as memory:
        assert (await memory.get_episode("new")).last_seq == 2
        assert (await memory.get_episode("old")).status == "ended"


async def test_steps_of_others_that_share_a_group_with_it_are_stored() -> None:
    files, provider = MemoryFileSystem(), Provider()
    async with open_on(files, config(provider, batch=BatchConfig.manual())) as memory:
        handles = [await memory.start_episode("task", episode_id=f"old{n}") for n in range(5)]
        provider.wraps = False
        receipts = [await handle.log_step(step(n)) for n, handle in enumerate(handles)]
        refused = 0

        async def start(name: str) -> None:
            nonlocal refused
            with pytest.raises(Unavailable):
                await memory.start_episode("task", episode_id=name)
            refused += 1

        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                for n, receipt in enumerate(receipts):
                    nursery.start_soon(receipt.wait_durable)
                    nursery.start_soon(start, f"new{n}")
        assert refused == 5


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_a_provider_that_cannot_unwrap_makes_what_is_not_in_use_unavailable_until_it_can(
    error: Exception, autojump_clock: trio.testing.MockClock
) -> None:
    files, provider = MemoryFileSystem(), Provider(error)
    async with open_on(files, config(provider)) as memory:
        for name in ("e", "f"):
            await (await memory.start_episode("task", episode_id=name)).log_step(step(1))
    async with open_on(files, config(provider)) as memory:
        awake = await memory.resume("f")
        provider.unwraps = False
        for _ in range(2):
            for call in (
                lambda: memory.get_episode("e"),
                lambda: memory.log_step("e", step(2)),
                lambda: memory.complete_episode("e", Success()),
            ):
                with pytest.raises(Unavailable, match=r"'e'.*(key provider|not today)"):
                    await call()
            await (await awake.log_step(step(2))).wait_durable()
            assert (await awake.get()).task_description == "task"
        provider.unwraps = True
        assert (await memory.log_step("e", step(2))).seq == 3
        done = await memory.complete_episode("e", Success())
        assert done.receipt.seq == 4


async def test_many_callers_of_an_episode_whose_key_cannot_be_had_are_all_told() -> None:
    files, provider = MemoryFileSystem(), Provider()
    async with open_on(files, config(provider)) as memory:
        await (await memory.start_episode("task", episode_id="e")).log_step(step(1))
    provider.unwraps = False
    told = 0
    async with open_on(files, config(provider)) as memory:

        async def log(number: int) -> None:
            nonlocal told
            with pytest.raises(Unavailable):
                await memory.log_step("e", step(number))
            told += 1

        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(log, number)
        assert told == 20
        assert provider.asked < 40 + 20


async def test_a_memory_whose_provider_fails_still_closes() -> None:
    files, provider = MemoryFileSystem(), Provider()
    with trio.fail_after(100):
        async with open_on(files, config(provider, batch=BatchConfig.manual())) as memory:
            handle = await memory.start_episode("task", episode_id="e")
            receipt = await handle.log_step(step(1))
            provider.wraps = provider.unwraps = False
    assert receipt.is_durable  # its key was at hand


# ---- tampering -------------------------------------------------------------------------------------------------------


async def test_ciphertext_changed_with_its_checksums_made_right_hurts_its_own_episode_only() -> None:
    """What a CRC cannot tell, the authentication of the batch does."""
    files = MemoryFileSystem()
    async with open_on(files, encrypted()) as memory:
        for name in ("e", "f"):
            handle = await memory.start_episode("task", episode_id=name)
            await (await handle.log_step(step(1))).wait_durable()
        await memory._journal.rotate()
        journal = memory._journal
        assert isinstance(journal, SegmentLogJournal)
        batch = journal._log.index.batches_after(E, 1)[0]
    log = {path: bytearray(content(files, path)) for path in segments(files)}
    log[batch.segment.path][batch.payload_at + batch.size // 2] ^= 1
    relink(list(log.values()))
    for path, data in log.items():
        put(files, path, bytes(data))
    async with open_on(files, encrypted()) as memory:
        with pytest.raises(EpisodeUnavailable) as caught:
            await memory.get_episode("e")
        assert caught.value.reason == "damaged"
        assert (await memory.get_episode("e", partial=True)).steps == []
        assert len((await memory.get_episode("f")).steps) == 1
        async with memory.follow() as events:
            found = [await events.receive() for _ in range(4)]
        assert [item for item in found if isinstance(item, Gap)] == [Gap(batch.first_lsn, batch.first_lsn)]
        await memory.delete_episode("e")
        with pytest.raises(NotFound):
            await memory.get_episode("e")


async def test_a_batch_in_clear_that_somebody_adds_to_an_encrypted_episode_is_seen_for_what_it_is() -> None:
    """Nothing authenticates it; it must at least not unsettle the rest."""
    files = await half_encrypted()
    await force_into_log(files, Batch(E, 3, [b"\xff not ours"], 0))
    async with open_on(files, encrypted()) as memory:
        with pytest.raises(EpisodeUnavailable) as caught:
            await memory.get_episode("e")
        assert caught.value.reason == "undecodable"
        assert len((await memory.get_episode("f")).steps) == 1


# ---- beside a writer -------------------------------------------------------------------------------------------------


async def test_a_reader_sees_new_keys_and_forgets_destroyed_ones(tmp_path: Path) -> None:
    async with open_memory(tmp_path / "m", config=encrypted()) as memory:
        await (await memory.start_episode("task", episode_id="e")).complete(Success())
        async with open_memory(tmp_path / "m", config=encrypted(), read_only=True) as reader:
            assert (await reader.get_episode("e")).status == "ended"
            await (await memory.start_episode("task", episode_id="f")).complete(Success())
            assert (await reader.get_episode("f")).status == "ended"
            await memory.delete_episode("e")
            with pytest.raises(NotFound):
                await reader.get_episode("e")
            assert (await reader.get_episode("f")).status == "ended"
