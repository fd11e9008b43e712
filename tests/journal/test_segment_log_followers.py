"""What followers of a segment log meet: read errors, keys that cannot be had, damage. And its rotation."""

from __future__ import annotations

import errno
import pathlib

import pytest

from stepstore.errors import InvalidInput, RecoveryFailed, Unavailable
from stepstore.journal import Gap, Record
from stepstore.journal.contract import Batch, append
from stepstore.log.key_provider import LocalKeyProvider
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
from stepwell.testing.journal_contract.place import A, B, everything, running, sequence, take, texts
from tests.journal.places import segment_log_on, segment_log_on_disk
from tests.support import HookedFileSystem


async def test_a_read_error_leaves_receive_and_the_next_one_gets_the_same_records() -> None:
    failing = False

    def hook(call: str, path: str) -> None:
        if failing and call == "read" and path.endswith(".seg"):
            raise OSError(errno.EIO, "injected", path)

    files = HookedFileSystem(MemoryFileSystem(), hook)
    async with running(segment_log_on(files)) as journal:
        await append(journal, A, texts(3), expected_seq=0)
        async with journal.follow() as slices:
            failing = True
            for _ in range(2):
                with pytest.raises(RecoveryFailed, match="read"):
                    await slices.receive()
            failing = False
            assert sequence(await take(slices, 3)) == [1, 2, 3]
            await append(journal, A, [b"live"], expected_seq=3)
            assert sequence(await take(slices, 1)) == [4]


class Keys:
    """A key provider that can be switched off."""

    def __init__(self) -> None:
        self.inner, self.works = LocalKeyProvider(b"a master key of 32 bytes for all"), True

    def wrap(self, key: bytes) -> bytes:
        return self.inner.wrap(key)

    def unwrap(self, wrapped: bytes) -> bytes:
        if not self.works:
            raise OSError("the key service does not answer")
        return self.inner.unwrap(wrapped)


async def test_a_key_that_cannot_be_had_stops_a_follower_right_before_its_record() -> None:
    """All before it is given, also of the same frame; once there is the key again it goes on there."""
    files, keys = MemoryFileSystem(), Keys()
    async with running(segment_log_on(files)) as journal:
        await append(journal, A, texts(2), expected_seq=0)
    options = LogOptions(segment_bytes=16 * 1024, key_provider=keys)
    encrypting = segment_log_on(files, options)
    async with running(encrypting) as journal:
        await journal.submit([Batch(B, 1, texts(2), 0)]).wait()
        await append(journal, B, [b"more"], expected_seq=2)
    keys.works = False
    async with running(encrypting) as journal, journal.follow() as slices:
        assert [(record.stream, record.seq) for record in await take(slices, 2)] == [(A, 1), (A, 2)]
        for _ in range(2):
            with pytest.raises(Unavailable, match="does not answer"):
                await slices.receive()
        keys.works = True
        assert [(record.stream, record.seq) for record in await take(slices, 3)] == [(B, 1), (B, 2), (B, 3)]
    keys.inner = LocalKeyProvider(b"another master key of 32 bytes!!")
    async with running(encrypting) as journal, journal.follow(2) as slices:
        with pytest.raises(InvalidInput, match="master key"):
            await slices.receive()
    async with (
        running(segment_log_on(files)) as journal,
        journal.follow(2) as slices,
    ):
        with pytest.raises(Unavailable, match="key_provider"):
            await slices.receive()


async def test_within_a_frame_what_stands_before_a_record_without_key_is_given() -> None:
    files, keys = MemoryFileSystem(), Keys()
    options = LogOptions(segment_bytes=16 * 1024, key_provider=keys)
    place = segment_log_on(files, options)
    async with running(place) as journal:
        await journal.submit([Batch(A, 1, texts(2), 0), Batch(B, 1, texts(2), 0)]).wait()
    async with running(place) as journal, journal.follow() as slices:
        assert await everything(journal, A)  # now its key is at hand, and that of B is not
        keys.works = False
        assert [(record.stream, record.seq) for record in await take(slices, 2)] == [(A, 1), (A, 2)]
        with pytest.raises(Unavailable):
            await slices.receive()
        keys.works = True
        assert [(record.stream, record.seq) for record in await take(slices, 2)] == [(B, 1), (B, 2)]


async def test_one_stream_whose_key_cannot_be_made_costs_the_others_of_its_group_nothing() -> None:
    class Choosy(Keys):
        def wrap(self, key: bytes) -> bytes:
            if not self.works:
                raise OSError("no new keys")
            return super().wrap(key)

    files, keys = MemoryFileSystem(), Choosy()
    options = LogOptions(segment_bytes=16 * 1024, key_provider=keys)
    async with running(segment_log_on(files, options)) as journal:
        await append(journal, A, texts(2), expected_seq=0)
        keys.works = False
        known = [journal.submit([Batch(A, 3, [b"known"], 0)])]
        fresh = [journal.submit([Batch(B, 1, [b"new"], 0)]), journal.submit([Batch(B, 2, [b"behind it"], 0)])]
        known.append(journal.submit([Batch(A, 4, [b"known"], 0)]))
        for submission in (*known, *fresh):
            await submission.wait()
        assert [submission.error for submission in known] == [None, None]
        for submission in fresh:
            assert isinstance(submission.error, Unavailable)
        assert sequence(await everything(journal, A)) == [1, 2, 3, 4]
        assert journal.last_seq(B) == 0
        keys.works = True
        await append(journal, B, [b"again"], expected_seq=0)


async def test_damaged_bytes_of_a_sealed_segment_are_a_gap(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    place = segment_log_on_disk(path)
    async with running(place) as journal:
        for seq in range(4):
            await append(journal, A, [b"a payload to find: %d" % seq], expected_seq=seq)
        await journal.submit([Batch(A, 5, [b"x"], 0), Batch(B, 1, [b"find me, too", b"and me"], 0)]).wait()
        await append(journal, A, [b"y"], expected_seq=5)
        await journal.rotate()
        await append(journal, A, [b"in the next segment"], expected_seq=6)
    (first, _second) = sorted(path.glob("*.seg"))
    content = bytearray(first.read_bytes())
    for text in (b"to find: 1", b"me, too"):
        content[content.index(text)] ^= 1
    first.write_bytes(content)
    async with running(place) as journal, journal.follow() as slices:
        found: list[Record | Gap] = []
        while len(found) < 8:
            found += await slices.receive()
        assert [item if isinstance(item, Gap) else (item.stream, item.seq) for item in found] == [
            (A, 1),
            Gap(2, 2),
            (A, 3),
            (A, 4),
            (A, 5),
            Gap(6, 7),
            (A, 6),
            (A, 7),
        ]


# ---- rotation --------------------------------------------------------------------------------------------------------


async def test_what_was_stored_before_a_rotation_lies_in_files_that_stay_as_they_are() -> None:
    files = MemoryFileSystem()

    def segments() -> dict[str, bytes]:
        names = [name for name in files.list_names("/log") if name.endswith(".seg")]
        return {name: files.open(f"/log/{name}", write=False).read(0, 1 << 20) for name in names}

    async with running(segment_log_on(files)) as journal:
        for seq in range(50):
            await append(journal, A, [b"x" * 500], expected_seq=seq)
        await journal.rotate()
        before = segments()
        for seq in range(50, 60):
            await append(journal, A, [b"y" * 500], expected_seq=seq)
    after = segments()
    complete = {name: content for name, content in before.items() if b"x" * 500 in content}
    assert len(complete) >= 2
    assert {name: after[name] for name in complete} == complete
