"""The key ring: every key that was given is there after a crash, and no destroyed one is anywhere."""

from __future__ import annotations

import errno
import io
import itertools
import os
import pathlib
import random
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstore.errors import CorruptLog, InvalidInput, KeyDestroyed, RecoveryFailed, Unavailable
from stepstore.log import keys_file
from stepstore.log.files import FileSystem, OsFileSystem
from stepstore.log.key_provider import KEY_BYTES, KeyProvider, LocalKeyProvider
from stepstore.log.key_ring import KeyRing
from stepstore.log.keys_file import MAX_WRAPPED_BYTES
from stepstore.log.memory_files import MemoryFileSystem
from tests.stepstore.log_lab import (
    LOG,
    Call,
    Stopped,
    WatchedFiles,
    clone,
    content,
    failing_at,
    flip,
    put,
    steady,
    stopping_at,
    stream_id,
    tree,
)

LOG_UUID = uuid.UUID(int=0x1234)
MASTER = bytes(range(32))
KEYS = f"{LOG}/keys"
A, B, C, D, E = (stream_id(name) for name in "ABCDE")
HEADER, SLOT = 512, 128


class Ledger:
    """A provider that remembers what it wrapped, so that a test knows what must be nowhere any more."""

    def __init__(self, inner: KeyProvider | None = None):
        self.inner = LocalKeyProvider(MASTER) if inner is None else inner
        self.wrapped: dict[bytes, bytes] = {}
        self.unwraps = 0

    def wrap(self, key: bytes) -> bytes:
        self.wrapped[key] = self.inner.wrap(key)
        return self.wrapped[key]

    def unwrap(self, wrapped: bytes) -> bytes:
        self.unwraps += 1
        return self.inner.unwrap(wrapped)


class Odd:
    """A provider that does as it is told."""

    def __init__(
        self,
        wrap: Callable[[bytes], bytes] = lambda key: key[::-1] + b"wrapped",
        unwrap: Callable[[bytes], bytes] = lambda wrapped: wrapped[31::-1],
    ):
        self._wrap, self._unwrap = wrap, unwrap

    def wrap(self, key: bytes) -> bytes:
        return self._wrap(key)

    def unwrap(self, wrapped: bytes) -> bytes:
        return self._unwrap(wrapped)


def empty_log() -> MemoryFileSystem:
    disk = MemoryFileSystem()
    disk.make_directory(LOG)
    disk.sync_directory("/")
    return disk


def open_ring(files: FileSystem, provider: KeyProvider | None = None, *, align: int = 0) -> KeyRing:
    return KeyRing.open(files, LOG, LOG_UUID, provider or LocalKeyProvider(MASTER), align=align)


def look(files: FileSystem, provider: KeyProvider | None = None) -> KeyRing:
    return KeyRing.open(files, LOG, LOG_UUID, provider or LocalKeyProvider(MASTER), read_only=True)


def names(files: FileSystem) -> list[str]:
    return files.list_names(KEYS)


def newest(files: FileSystem) -> str:
    return f"{KEYS}/{max(names(files), key=lambda name: int(name[5:]))}"


def bytes_on(files: FileSystem) -> bytes:
    """Every byte of every file."""
    return b"|".join(data for data in tree(files).values() if data is not None)


def three_appends(*groups: Sequence[bytes]) -> tuple[MemoryFileSystem, dict[bytes, bytes]]:
    """A ring with one `add` per group, and its keys."""
    disk = empty_log()
    ring = open_ring(disk)
    for group in groups or ((A,), (B,), (C,)):
        ring.add(group)
    keys = {stream: ring.key(stream) for group in groups or ((A,), (B,), (C,)) for stream in group}
    ring.close()
    return disk, keys


# ---- what it is for --------------------------------------------------------------------------------------------------


def test_a_ring_that_nobody_gave_a_stream_creates_nothing() -> None:
    disk = empty_log()
    ring = open_ring(disk)
    ring.add(())
    ring.destroy((A,))
    ring.close()
    assert tree(disk) == {LOG: None}
    assert A not in ring
    assert len(ring) == 0


def test_every_stream_has_a_key_of_its_own_that_a_later_opening_finds() -> None:
    disk, keys = three_appends((A, B), (C,))
    assert len(set(keys.values())) == 3
    assert {len(key) for key in keys.values()} == {KEY_BYTES}
    ring = open_ring(disk)
    assert {stream: ring.key(stream) for stream in (A, B, C)} == keys
    assert A in ring
    assert D not in ring
    assert len(ring) == 3


def test_a_stream_that_has_a_key_keeps_it_when_it_is_added_again() -> None:
    disk, keys = three_appends((A,))
    ring = open_ring(disk)
    before = tree(disk)
    ring.add((A, A))
    assert tree(disk) == before
    ring.add((A, B, B))
    assert ring.key(A) == keys[A]
    assert len(ring) == 2


def test_no_key_is_on_the_medium_in_clear() -> None:
    disk, keys = three_appends((A, B), (C,))
    for key in keys.values():
        assert key not in bytes_on(disk)


def test_a_key_is_on_the_medium_when_add_returns() -> None:
    disk = empty_log()
    ring = open_ring(disk)
    for stream in (A, B, C):
        ring.add((stream,))
        assert open_ring(disk.durable_copy()).key(stream) == ring.key(stream)


def test_a_group_of_new_streams_costs_one_write_and_one_sync() -> None:
    disk, _ = three_appends((A,))
    files = WatchedFiles(disk)
    ring = open_ring(files)
    files.calls.clear()
    ring.add([stream_id(f"stream {n}") for n in range(100)])
    assert [call.operation for call in files.calls] == ["write", "datasync"]


def test_a_destroyed_key_is_in_no_file_and_the_others_stay() -> None:
    disk = empty_log()
    ledger = Ledger()
    ring = open_ring(disk, ledger)
    ring.add((A, B))
    ring.add((C,))
    kept, gone = ring.key(A), ring.key(B)
    ring.destroy((B, D))
    for files in (disk, disk.durable_copy()):
        assert names(files) == ["KEYS-2"]
        assert ledger.wrapped[gone] not in bytes_on(files)
        assert open_ring(clone(files)).key(A) == kept
    with pytest.raises(KeyDestroyed) as caught:
        ring.key(B)
    assert caught.value.stream == B
    assert not isinstance(caught.value, CorruptLog)


def test_destroying_twice_changes_nothing_more() -> None:
    disk, _ = three_appends()
    ring = open_ring(disk)
    ring.destroy((B,))
    before = tree(disk)
    ring.destroy((B,))
    assert tree(disk) == before


def test_a_ring_goes_on_after_its_last_key_was_destroyed() -> None:
    disk, _ = three_appends((A,))
    ring = open_ring(disk)
    ring.destroy((A,))
    assert names(disk) == ["KEYS-2"]
    assert len(ring) == 0
    ring.add((B,))
    assert open_ring(disk.durable_copy()).key(B) == ring.key(B)


def test_an_opening_destroys_the_keys_that_a_crash_left_to_deleted_streams() -> None:
    disk, keys = three_appends()
    ring = open_ring(disk)
    ring.finish_destroying({B, D, E})
    assert B not in open_ring(disk.durable_copy())
    assert ring.key(A) == keys[A]


def test_a_failure_to_destroy_at_an_opening_says_so() -> None:
    disk, _ = three_appends()
    files = WatchedFiles(disk)
    ring = open_ring(files)
    files.before = failing_at(len(files.calls) + 1, errno.EIO)
    with pytest.raises(RecoveryFailed) as caught:
        ring.finish_destroying({B})
    assert caught.value.errno == errno.EIO


def test_a_ring_without_a_provider_destroys_and_does_nothing_else() -> None:
    disk, _ = three_appends()
    ring = KeyRing.open(disk, LOG, LOG_UUID, None)
    assert not ring.makes_keys
    with pytest.raises(Unavailable, match="key_provider"):
        ring.key(A)
    with pytest.raises(Unavailable, match="key_provider"):
        ring.add((D,))
    ring.destroy((A,))
    assert A not in open_ring(disk)


def test_a_stream_id_of_the_wrong_length_is_refused() -> None:
    ring = open_ring(empty_log())
    with pytest.raises(InvalidInput, match="15 bytes"):
        ring.add((A, b"x" * 15))
    assert A not in ring


def test_keys_are_unwrapped_when_they_are_needed_and_only_so_many_are_kept() -> None:
    disk, keys = three_appends()
    ledger = Ledger()
    ring = KeyRing.open(disk, LOG, LOG_UUID, ledger, cached=2)
    assert ledger.unwraps == 0
    for stream in (A, A, B, B, A):
        assert ring.key(stream) == keys[stream]
    assert ledger.unwraps == 2
    ring.key(C)  # drops B, which was not used for longest
    ring.key(A)
    assert ledger.unwraps == 3
    ring.key(B)
    assert ledger.unwraps == 4


def test_in_a_forked_child_nobody_waits_for_a_lock_that_a_thread_of_the_parent_held() -> None:
    disk, keys = three_appends()
    ring = open_ring(disk)
    found: list[bytes] = []

    def look_and_close() -> None:
        found.append(ring.key(A))
        ring.close()

    with ring._lock, ring._changing:  # as they are in the child, where nobody lets go of them
        ring.forked()
        child = threading.Thread(target=look_and_close, daemon=True)
        child.start()
        child.join(60)
    assert not child.is_alive()
    assert found == [keys[A]]


# ---- crashes ---------------------------------------------------------------------------------------------------------

Operation = Literal["add", "destroy"]
Script = list[tuple[Operation, tuple[bytes, ...]] | None]
SCRIPT: Script = [
    ("add", (A, B)),
    ("add", (C,)),
    ("destroy", (B,)),
    ("add", tuple(stream_id(f"many {n}") for n in range(7))),  # more than a sector
    None,  # open again
    ("add", (D,)),
    ("destroy", (A, D)),
    None,
    ("destroy", (C,)),
    ("add", (E, B)),
]


IMAGES = int(os.environ.get("STEPWELL_KEY_IMAGES", "400"))
FIRST_SEED = 1


def random_script(dice: random.Random) -> Script:
    script: Script = []
    known: list[bytes] = []
    for n in range(10):
        kind = dice.randrange(6)
        if kind < 3:
            new = [stream_id(f"{n} {m}") for m in range(dice.choice([1, 1, 2, 9]))]
            script.append(("add", tuple(new + dice.sample(known, min(len(known), dice.randrange(2))))))
            known += new
        elif kind < 5 and known:
            gone = dice.sample(known, dice.randrange(1, min(4, len(known)) + 1))
            script.append(("destroy", tuple(gone)))
            known = [stream for stream in known if stream not in gone]
        else:
            script.append(None)
    return script


@dataclass(frozen=True)
class Promise:
    """What must be in an image: these keys, and perhaps those of streams under way; and nowhere what is destroyed."""

    number: int = 0
    certain: dict[bytes, bytes] = field(default_factory=dict)
    adding: tuple[bytes, ...] = ()
    destroying: tuple[bytes, ...] = ()
    destroyed: frozenset[bytes] = frozenset()


class Broken(AssertionError):
    """An image does not hold what was promised."""


class Enumerator:
    """Runs the script, takes images of the disk in front of every call, and compares them with what was promised."""

    def __init__(
        self,
        script: Script,
        dice: random.Random,
        align: int,
        spoil: Callable[[WatchedFiles], None] = lambda files: None,
    ):
        self.script, self.dice, self.align, self.spoil = script, dice, align, spoil
        self.ledger = Ledger()
        self.promise = Promise()
        self.seen: set[object] = set()
        self.checked = 0

    def new_images(self, disk: MemoryFileSystem, promise: Promise) -> list[MemoryFileSystem]:
        """What a power cut now may leave, as far as it was not seen before with the same promise."""
        images: list[MemoryFileSystem] = []
        for image in (disk.durable_copy(), clone(disk), *(disk.crash_copy(self.dice.randrange) for _ in range(6))):
            look = (tuple(sorted((path, data or b"") for path, data in tree(image).items())), promise.number)
            if look not in self.seen:
                self.seen.add(look)
                images.append(image)
        return images

    def run(self) -> None:
        disk = empty_log()
        taken: list[tuple[str, MemoryFileSystem, Promise]] = []

        def take(call: Call) -> None:
            for n, image in enumerate(self.new_images(disk, self.promise)):
                taken.append((f"image {n} in front of call {call.number} {call.operation}", image, self.promise))

        files = WatchedFiles(disk, take)
        self.spoil(files)
        self.live(files)
        taken.append(("the end", disk.durable_copy(), self.promise))
        for at, image, promised in taken:
            self.check(at, image, promised)

    def die_at(self, call: int) -> MemoryFileSystem | None:
        """The disk as a process leaves it that dies in front of a call, None if it made fewer."""
        disk = empty_log()
        try:
            self.live(WatchedFiles(disk, stopping_at(call)))
        except Stopped:
            return disk
        return None

    def open_after_death(self, at: str, disk: MemoryFileSystem) -> None:
        """What the next process finds is what the dead one saw; a power cut in its opening is another matter."""
        images: list[MemoryFileSystem] = []
        files = WatchedFiles(disk, lambda call: images.extend(self.new_images(disk, self.promise)))
        self.compare(at, files, self.promise)
        for n, image in enumerate(images):
            self.compare(f"{at}, image {n} of the next opening", image, self.promise)

    def live(self, files: WatchedFiles) -> None:
        """Run the script, and keep account of what was promised."""
        ring = open_ring(files, self.ledger, align=self.align)
        for step in self.script:
            if step is None:
                ring.close()
                ring = open_ring(files, self.ledger, align=self.align)
                continue
            operation, streams = step
            if operation == "add":
                self.promised(adding=streams)
                ring.add(streams)
                certain = self.promise.certain | {stream: ring.key(stream) for stream in streams}
                self.promised(certain=certain, adding=())
            else:
                gone = {self.ledger.wrapped[self.promise.certain[stream]] for stream in streams}
                certain = {stream: key for stream, key in self.promise.certain.items() if stream not in streams}
                self.promised(certain=certain, destroying=streams)
                ring.destroy(streams)
                self.promised(destroying=(), destroyed=self.promise.destroyed | gone)

    def promised(self, **changes: object) -> None:
        self.promise = replace(self.promise, number=self.promise.number + 1, **changes)  # type: ignore[arg-type]

    def check(self, at: str, image: MemoryFileSystem, promise: Promise) -> None:
        """Open the image, with crashes in that as well, and look."""
        again: list[MemoryFileSystem] = []
        disk = clone(image)
        files = WatchedFiles(disk, lambda call: again.extend(self.new_images(disk, promise)))
        self.compare(at, files, promise)
        for n, second in enumerate(again):
            self.compare(f"{at}, image {n} of the next opening", second, promise)

    def compare(self, at: str, files: FileSystem, promise: Promise) -> None:
        self.checked += 1
        if any(wrapped in bytes_on(files) for wrapped in promise.destroyed):
            raise Broken(f"{at}: a destroyed key is still on the disk")
        try:
            ring = open_ring(files, self.ledger, align=self.align)
        except (CorruptLog, RecoveryFailed) as error:
            raise Broken(f"{at}: does not open: {error}") from error
        disk = files.inner if isinstance(files, WatchedFiles) else files
        assert isinstance(disk, MemoryFileSystem)
        if KEYS in tree(disk) and (len(names(disk)) > 1 or any(name.endswith(".tmp") for name in names(disk))):
            raise Broken(f"{at}: the opening left {names(disk)}")
        ring.finish_destroying(promise.destroying)
        later = open_ring(disk.durable_copy(), self.ledger)
        for stream, key in promise.certain.items():
            if stream not in ring or ring.key(stream) != key or later.key(stream) != key:
                raise Broken(f"{at}: a key is lost")
        known = {*promise.certain, *promise.adding}
        for stream in known:
            if (stream in ring) != (stream in later) or (stream in ring and ring.key(stream) != later.key(stream)):
                raise Broken(f"{at}: a key that is served is not on the medium")
        if len(ring) != sum(stream in ring for stream in known):
            raise Broken(f"{at}: there is a key too many")
        ring.close()


@pytest.mark.parametrize("align", [0, 512, 4096])
def test_a_crash_at_any_call_loses_no_key_and_revives_none(align: int) -> None:
    images, seed = 0, FIRST_SEED
    while images < IMAGES:
        dice = random.Random(seed)
        enumerator = Enumerator(random_script(dice) if seed > FIRST_SEED else SCRIPT, dice, align)
        try:
            enumerator.run()
        except Broken as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        images += enumerator.checked
        seed += 1
    print(f"{images} different images, seeds {FIRST_SEED} to {seed - 1}")


def test_a_process_that_dies_at_any_call_leaves_what_survives_a_power_cut_after_the_next_opening() -> None:
    """Nothing is lost when the process dies alone; but what the next one finds need not be on the medium."""
    disk: MemoryFileSystem | None = empty_log()
    calls = 0
    while disk is not None:
        enumerator = Enumerator(SCRIPT, random.Random(FIRST_SEED), 0)
        calls += 1
        disk = enumerator.die_at(calls)
        if disk is not None:
            enumerator.open_after_death(f"killed in front of call {calls}", disk)
    assert calls > 60


def no_sync_of_names(files: WatchedFiles) -> None:
    files.sync_directory = lambda path: None  # type: ignore[method-assign]


def no_sync_of_new_files(files: WatchedFiles) -> None:
    files.lying = ".tmp"


def no_sync_of_appends(files: WatchedFiles) -> None:
    files.lying = "KEYS-1"


def old_files_stay(files: WatchedFiles) -> None:
    files.unlink = lambda path: None  # type: ignore[method-assign]


@pytest.mark.parametrize("spoil", [no_sync_of_names, no_sync_of_new_files, no_sync_of_appends, old_files_stay])
def test_the_enumerator_objects_to_a_ring_that_does_not_keep_its_promises(
    spoil: Callable[[WatchedFiles], None],
) -> None:
    with pytest.raises(Broken):
        Enumerator(SCRIPT, random.Random(FIRST_SEED), 0, spoil).run()


def run_script(ring: KeyRing, files: FileSystem, attempts: int, provider: KeyProvider | None = None) -> KeyRing:
    """The script, with every step repeated after an I/O error."""
    for step in SCRIPT:
        for attempt in range(attempts):
            try:
                if step is None:
                    ring.close()
                    ring = open_ring(files, provider)
                elif step[0] == "add":
                    ring.add(step[1])
                else:
                    ring.destroy(step[1])
                break
            except (OSError, RecoveryFailed):
                if attempt == attempts - 1:
                    raise
    return ring


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_after_an_error_of_any_call_the_same_again_succeeds(number: int) -> None:
    disk = empty_log()
    files = WatchedFiles(disk)
    ring = open_ring(files)
    opened = len(files.calls)
    run_script(ring, files, 1)
    expected = streams_on(disk)
    assert expected == {E, B, *(stream for step in SCRIPT[3:4] if step for stream in step[1])}
    for k in range(opened + 1, len(files.calls) + 1):
        disk = empty_log()
        ledger = Ledger()
        failing = WatchedFiles(disk)
        ring = open_ring(failing, ledger)
        failing.before = failing_at(k, number)
        ring = run_script(ring, failing, 2, ledger)
        left = disk.durable_copy()
        assert len(names(left)) == 1, f"call {k}"
        later = open_ring(left)
        assert len(later) == len(ring) == len(expected)
        used = {later.key(stream) for stream in expected}
        assert used == {ring.key(stream) for stream in expected}, f"call {k}"
        for key, wrapped in ledger.wrapped.items():
            assert (wrapped in bytes_on(left)) == (key in used), f"call {k}"


def test_while_errors_last_nothing_is_acknowledged_and_then_all_goes_on() -> None:
    disk, keys = three_appends()
    files = WatchedFiles(disk)
    ring = open_ring(files)
    began = len(files.calls)

    def always(call: Call) -> None:
        if call.operation in ("datasync", "sync_directory"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), call.path)

    files.before = always
    for _ in range(3):
        with pytest.raises(OSError):
            ring.add((D,))
        assert D not in ring
        with pytest.raises(OSError):
            ring.destroy((A,))
        assert A not in ring  # nobody may use it any more, whatever is on the medium
    assert len(names(disk)) <= 3, "unfinished files do not pile up"
    assert len(files.calls) > began
    files.before = None
    ring.destroy(())
    later = open_ring(disk.durable_copy())
    assert {stream: later.key(stream) for stream in (B, C)} == {B: keys[B], C: keys[C]}
    assert len(later) == 2
    ring.add((D,))
    assert open_ring(disk.durable_copy()).key(D) == ring.key(D)


def test_nothing_is_appended_to_a_file_after_its_sync_failed() -> None:
    disk, keys = three_appends()
    files = WatchedFiles(disk)
    ring = open_ring(files)
    files.before = failing_at(len(files.calls) + 2, errno.EIO)
    with pytest.raises(OSError):
        ring.add((D,))
    assert files.calls[-1].operation == "datasync"
    files.calls.clear()
    files.before = None
    ring.add((D,))
    assert not [call for call in files.calls if call.operation == "write" and call.path.endswith("KEYS-1")]
    assert names(disk) == ["KEYS-2"]
    assert open_ring(disk.durable_copy()).key(A) == keys[A]


def test_a_key_that_only_the_page_cache_holds_is_written_again_before_it_is_served() -> None:
    disk, _ = three_appends()
    files = WatchedFiles(disk)
    ring = open_ring(files)
    files.before = failing_at(len(files.calls) + 2, errno.EIO)
    with pytest.raises(OSError):
        ring.add((D,))
    # What Linux does after a failed sync: the pages are clean, so they are read as they are and never written.
    inode = disk._volatile[KEYS]["KEYS-1"]
    assert inode is not None
    assert len(inode.durable) < len(inode.volatile)
    inode.unsynced.clear()
    assert D not in open_ring(disk.durable_copy())
    ring = open_ring(disk)
    assert open_ring(disk.durable_copy()).key(D) == ring.key(D)


@pytest.mark.parametrize("between", range(1, 40))
def test_a_process_killed_in_an_opening_leaves_what_the_next_one_opens(between: int) -> None:
    disk, keys = three_appends()
    put(disk, newest(disk), bytes(100), at=HEADER + 3 * SLOT)  # the tail of a torn append
    put(disk, f"{KEYS}/KEYS-7.tmp", b"unfinished")
    files = WatchedFiles(disk)
    files.before = stopping_at(between)
    try:
        open_ring(files)
    except Stopped:
        pass
    else:
        assert between > 20
    ring = open_ring(disk)
    assert {stream: ring.key(stream) for stream in keys} == keys
    assert names(disk) == ["KEYS-2"]


def test_of_two_files_the_higher_wins_and_the_lower_goes() -> None:
    disk, keys = three_appends((A,), (B,))
    lower = content(disk, newest(disk))
    ring = open_ring(disk)
    ring.destroy((A,))
    put(disk, f"{KEYS}/KEYS-1", lower)
    ring = open_ring(disk)
    assert A not in ring
    assert ring.key(B) == keys[B]
    assert names(disk.durable_copy()) == ["KEYS-2"]


def test_a_damaged_higher_file_does_not_bring_the_lower_one_back() -> None:
    disk, _ = three_appends((A,), (B,))
    lower = content(disk, newest(disk))
    open_ring(disk).destroy((A,))
    put(disk, f"{KEYS}/KEYS-1", lower)
    flip(disk, f"{KEYS}/KEYS-2", HEADER + 40)
    before = tree(disk)
    with pytest.raises(CorruptLog) as caught:
        open_ring(disk)
    assert caught.value.file == f"{KEYS}/KEYS-2"
    assert caught.value.offset == HEADER
    assert tree(disk) == before


def test_files_of_others_in_the_directory_stay() -> None:
    disk, _ = three_appends()
    put(disk, f"{KEYS}/README", b"mine")
    put(disk, f"{KEYS}/KEYS-07", b"no number of ours begins with zero")
    ring = open_ring(disk)
    ring.destroy((A,))
    assert names(disk) == ["KEYS-07", "KEYS-2", "README"]


# ---- torn and rotten -------------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed() -> None:
    disk, _ = three_appends((A, B), (C,))
    path = newest(disk)
    whole = content(disk, path)
    assert len(whole) == HEADER + 3 * SLOT
    for offset, bit in itertools.product(range(len(whole)), range(8)):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << bit
        put(disk, path, damaged)
        with pytest.raises(CorruptLog):
            open_ring(disk)
        assert content(disk, path) == damaged


def test_every_length_opens_to_what_it_holds_or_is_refused() -> None:
    disk, keys = three_appends((A, B), (C,), (D, E))
    whole = content(disk, newest(disk))
    for length in range(len(whole) + 1):
        put(disk, f"{KEYS}/KEYS-1", whole[:length])
        slots = max(0, length - HEADER) // SLOT
        if slots < 2:  # the header says that these were durable; of the second append only the third would tell
            with pytest.raises(CorruptLog):
                open_ring(disk)
            continue
        ring = open_ring(disk)
        assert {stream: ring.key(stream) for stream in list(keys)[:slots]} == dict(list(keys.items())[:slots])
        assert len(ring) == slots
        if (length - HEADER) % SLOT:
            assert names(disk) == ["KEYS-2"]
            disk.unlink(f"{KEYS}/KEYS-2")
        else:
            assert content(disk, f"{KEYS}/KEYS-1") == whole[:length]
            disk.unlink(f"{KEYS}/KEYS-1")


@pytest.mark.parametrize("zeroed", [{3}, {4}, {5}, {3, 4}, {3, 5}, {3, 4, 5}, {2}, {0}, {1, 4}])
def test_slots_of_the_last_append_that_are_zero_are_torn_and_others_are_damage(zeroed: set[int]) -> None:
    disk, keys = three_appends((A, B), (C,), (D, E, stream_id("F")))
    path = newest(disk)
    for n in zeroed:
        put(disk, path, bytes(SLOT), at=HEADER + n * SLOT)
    if min(zeroed) < 3:
        with pytest.raises(CorruptLog) as caught:
            open_ring(disk)
        assert caught.value.offset == HEADER + min(zeroed) * SLOT
        return
    ring = open_ring(disk)
    left = {stream: key for n, (stream, key) in enumerate(keys.items()) if n not in zeroed}
    assert {stream: ring.key(stream) for stream in left} == left
    assert len(ring) == len(left)
    assert names(disk) == ["KEYS-2"]
    assert open_ring(disk.durable_copy()).key(A) == keys[A]


def test_a_slot_of_another_file_or_at_another_place_is_damage() -> None:
    disk, _ = three_appends()
    other, _ = three_appends()
    path = newest(disk)
    whole, foreign = content(disk, path), content(other, path)
    first, second, third = (whole[at : at + SLOT] for at in range(HEADER, len(whole), SLOT))
    of_the_other = foreign[HEADER + 2 * SLOT :]
    for slots in ((first, second, of_the_other), (first, third, second), (first, second, second), (second, third)):
        put(disk, path, whole[:HEADER] + b"".join(slots))
        with pytest.raises(CorruptLog):
            open_ring(disk)


def crafted(slots: Sequence[tuple[bytes, bytes]], *, version: int = 1, slot_bytes: int = SLOT) -> MemoryFileSystem:
    """A file of keys whose CRCs are right."""
    header = keys_file.KeysHeader(version, slot_bytes, len(slots), 99, 1, LOG_UUID.bytes)
    data = keys_file.encode_header(header)
    for n, (stream, wrapped) in enumerate(slots):
        data += keys_file.encode_slot(keys_file.Slot(0, stream, wrapped), SLOT, 99, n)
    disk = empty_log()
    disk.make_directory(KEYS)
    put(disk, f"{KEYS}/KEYS-1", data)
    return disk


def test_a_file_that_contradicts_itself_is_refused() -> None:
    assert len(open_ring(crafted([(A, b"one"), (B, b"two")]))) == 2
    for disk in (
        crafted([(A, b"one"), (A, b"two")]),
        crafted([(A, b"one")], slot_bytes=100),
        crafted([], slot_bytes=0),
    ):
        with pytest.raises(CorruptLog):
            open_ring(disk)


def test_a_file_of_a_newer_version_is_refused() -> None:
    with pytest.raises(RecoveryFailed, match=r"version 2.*newer Stepwell"):
        open_ring(crafted([], version=2))


def test_the_keys_of_another_log_are_refused() -> None:
    disk, _ = three_appends()
    with pytest.raises(CorruptLog) as caught:
        KeyRing.open(disk, LOG, uuid.UUID(int=1), LocalKeyProvider(MASTER))
    assert caught.value.row == 13


def test_a_file_under_the_number_of_another_is_refused() -> None:
    disk, _ = three_appends()
    put(disk, f"{KEYS}/KEYS-2", content(disk, newest(disk)))
    with pytest.raises(CorruptLog):
        open_ring(disk)


def test_an_error_of_reading_is_no_verdict() -> None:
    disk, _ = three_appends()
    files = WatchedFiles(disk)
    open_ring(files)
    assert len(files.calls) > 6
    for k in range(1, len(files.calls) + 1):
        with pytest.raises(RecoveryFailed) as caught:
            open_ring(WatchedFiles(disk, failing_at(k, errno.EIO)))
        assert caught.value.errno == errno.EIO


def test_a_read_that_ends_early_is_no_verdict() -> None:
    disk, _ = three_appends()
    files = WatchedFiles(disk)
    files.spoil_read = lambda call, data: data[:-10]
    before = tree(disk)
    with pytest.raises(RecoveryFailed):
        open_ring(files)
    assert tree(disk) == before


@pytest.mark.parametrize("align", [0, 512, 4096])
def test_the_file_is_a_cbor_sequence_that_says_what_it_holds(align: int) -> None:
    disk = empty_log()
    ledger = Ledger()
    ring = open_ring(disk, ledger, align=align)
    ring.add((A, B))
    ring.add((C,))
    data = content(disk, newest(disk))
    assert data.startswith(bytes.fromhex("d9d9f7"))
    header, *slots = cbor_items(data)
    tag = header[4]
    assert header[:7] == ["stepwell keys", 1, SLOT, header[3], tag, 1, LOG_UUID.bytes]
    kept = [slot for slot in slots if slot[4]]
    assert [slot[3] for slot in kept] == [A, B, C]
    assert [slot[4] for slot in kept] == [ledger.wrapped[ring.key(stream)] for stream in (A, B, C)]
    assert [slot[:2] for slot in slots] == [[tag, number] for number in range(len(slots))]
    first = header[3]
    assert [slot[2] for slot in kept] == [0, 0, first]
    assert len(slots) == (3 if not align else len(data[HEADER:]) // SLOT)


def test_with_an_alignment_no_append_touches_a_unit_that_was_written_before() -> None:
    disk = empty_log()
    files = WatchedFiles(disk)
    ring = open_ring(files, align=4096)
    written: set[int] = set()
    for n in range(70):
        ring.add([stream_id(f"{n} {m}") for m in range(n % 3 + 1)])
        call = next(call for call in reversed(files.calls) if call.operation == "write")
        units = set(range(call.offset // 4096, (call.offset + len(call.data) - 1) // 4096 + 1))
        assert call.offset % 4096 == 0
        assert not units & written
        written |= units
    assert len(open_ring(disk)) == len(ring)


def test_a_ring_without_alignment_that_is_opened_with_one_begins_a_new_file() -> None:
    disk, keys = three_appends()
    ring = open_ring(disk, align=4096)
    assert names(disk) == ["KEYS-2"]
    assert len(content(disk, newest(disk))) == 4096
    assert {stream: ring.key(stream) for stream in keys} == keys


# ---- beside a writer -------------------------------------------------------------------------------------------------


def test_a_ring_opened_for_reading_changes_nothing() -> None:
    disk, keys = three_appends()
    whole = content(disk, newest(disk))
    put(disk, f"{KEYS}/KEYS-2.tmp", b"unfinished")
    for tail in (b"", bytes(SLOT), bytes(77), b"\x87 half a slot" + bytes(300)):
        put(disk, f"{KEYS}/KEYS-1", whole + tail)
        before = tree(disk)
        files = WatchedFiles(disk)
        ring = look(files)
        assert not ring.makes_keys
        assert {stream: ring.key(stream) for stream in keys} == keys
        with pytest.raises(KeyDestroyed):
            ring.key(D)
        assert files.changes() == []
        assert not {"datasync", "sync_directory"} & {call.operation for call in files.calls}
        assert tree(disk) == before
        ring.close()
        assert not files.open_files


def test_a_ring_opened_for_reading_refuses_what_is_proven_to_be_damage() -> None:
    disk, _ = three_appends()
    flip(disk, newest(disk), HEADER + SLOT + 30)  # the second; the third says that it was durable
    with pytest.raises(CorruptLog):
        look(disk)


def test_a_ring_opened_for_reading_where_there_are_no_keys_sees_the_first() -> None:
    disk = empty_log()
    reader = look(disk)
    with pytest.raises(KeyDestroyed):
        reader.key(A)
    writer = open_ring(disk)
    writer.add((A,))
    assert reader.key(A) == writer.key(A)


def test_a_reader_sees_what_a_writer_beside_it_adds_and_destroys() -> None:
    disk, keys = three_appends()
    reader, writer = look(disk), open_ring(disk)
    assert reader.key(A) == keys[A]
    writer.add((D,))
    assert reader.key(D) == writer.key(D)
    writer.destroy((A, B))
    assert reader.key(A) == keys[A]  # known from before; nothing can take it from another process
    with pytest.raises(KeyDestroyed):
        reader.key(E)
    for stream in (A, B):  # it has looked again
        with pytest.raises(KeyDestroyed):
            reader.key(stream)


def test_a_file_that_a_writer_replaces_meanwhile_is_looked_for_again() -> None:
    disk, keys = three_appends()
    writer = open_ring(disk)
    files = WatchedFiles(disk)

    def replace_it(call: Call) -> None:
        if call.operation == "open" and call.path.endswith("KEYS-1"):
            writer.destroy((A,))

    files.before = replace_it
    reader = look(files)
    assert A not in reader
    assert reader.key(B) == keys[B]


def test_a_reader_whose_file_vanishes_every_time_gives_up() -> None:
    disk, _ = three_appends()
    writer = open_ring(disk)
    files = WatchedFiles(disk)
    numbers = itertools.count()

    def replace_it(call: Call) -> None:
        if call.operation == "open":
            writer.add((stream_id(str(next(numbers))),))
            writer.destroy((stream_id(str(next(numbers) - 1)),))

    files.before = replace_it
    with pytest.raises(RecoveryFailed):
        look(files)


def test_a_half_written_slot_is_read_once_it_is_whole() -> None:
    disk, _ = three_appends()
    whole = content(disk, newest(disk))
    put(disk, newest(disk), whole[: -SLOT // 2] + bytes(SLOT // 2))
    reader = look(disk)
    assert C not in reader
    assert A in reader
    put(disk, newest(disk), whole)
    assert reader.key(C) == open_ring(disk).key(C)


def test_a_reader_does_not_read_the_file_again_for_every_destroyed_key() -> None:
    disk, _ = three_appends()
    files = WatchedFiles(disk)
    reader = look(files)
    files.calls.clear()
    for _ in range(5):
        with pytest.raises(KeyDestroyed):
            reader.key(D)
    assert "read" not in {call.operation for call in files.calls}


def test_an_error_while_looking_again_is_no_verdict() -> None:
    disk, _ = three_appends()
    files = WatchedFiles(disk)
    reader = look(files)
    files.before = failing_at(len(files.calls) + 1, errno.EIO)
    with pytest.raises(RecoveryFailed):
        reader.key(D)


# ---- providers -------------------------------------------------------------------------------------------------------


def test_the_local_provider_gives_back_what_it_wrapped() -> None:
    key = bytes(range(100, 132))
    wrapped = LocalKeyProvider(MASTER).wrap(key)
    assert key not in wrapped
    assert LocalKeyProvider(MASTER).unwrap(wrapped) == key
    for n in range(len(wrapped)):
        with pytest.raises(InvalidInput, match="master key"):
            LocalKeyProvider(MASTER).unwrap(wrapped[:n] + bytes([wrapped[n] ^ 1]) + wrapped[n + 1 :])
        with pytest.raises(InvalidInput, match="master key"):
            LocalKeyProvider(MASTER).unwrap(wrapped[:n])


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_master_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidInput, match=f"{length} bytes"):
        LocalKeyProvider(bytes(length))


def test_a_provider_does_not_show_its_key() -> None:
    shown = f"{LocalKeyProvider(MASTER)!r} {LocalKeyProvider(MASTER)}"
    assert repr(MASTER)[2:-1] not in shown
    assert MASTER.hex() not in shown


def test_another_master_key_neither_reads_nor_writes() -> None:
    disk, _ = three_appends()
    ring = open_ring(disk, LocalKeyProvider(bytes(32)))
    with pytest.raises(InvalidInput, match="master key"):
        ring.key(A)
    before = tree(disk)
    with pytest.raises(InvalidInput, match="master key"):
        ring.add((D,))
    assert tree(disk) == before
    assert D not in ring
    ring.destroy((A,))  # for that no key is needed
    assert A not in open_ring(disk)


@pytest.fixture
def key_file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "master"
    path.write_bytes(MASTER)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_file_that_only_its_owner_may_read_is_taken(key_file: pathlib.Path, mode: int) -> None:
    key_file.chmod(mode)
    disk, keys = three_appends()
    assert open_ring(disk, LocalKeyProvider.from_file(key_file)).key(A) == keys[A]
    assert open_ring(disk, LocalKeyProvider.from_file(str(key_file))).key(B) == keys[B]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777])
def test_a_key_file_that_others_may_use_is_refused(key_file: pathlib.Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(InvalidInput, match=f"mode {mode:04o}.*0600"):
        LocalKeyProvider.from_file(key_file)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_key_file_of_another_length_is_refused(key_file: pathlib.Path, size: int) -> None:
    key_file.write_bytes(bytes(size))
    with pytest.raises(InvalidInput, match="32 bytes"):
        LocalKeyProvider.from_file(key_file)


def test_a_key_file_that_is_no_file_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        LocalKeyProvider.from_file(tmp_path / "missing")
    (tmp_path / "directory").mkdir(mode=0o600)
    with pytest.raises(InvalidInput):
        LocalKeyProvider.from_file(tmp_path / "directory")
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(InvalidInput):
        LocalKeyProvider.from_file(tmp_path / "fifo")


def fails(*_: bytes) -> bytes:
    raise ConnectionError("no route to the key service")


def test_a_provider_that_fails_is_unavailable_and_changes_nothing() -> None:
    disk = empty_log()
    ring = open_ring(disk, Odd(wrap=fails))
    with pytest.raises(Unavailable, match="no route") as caught:
        ring.add((A,))
    assert isinstance(caught.value.__cause__, ConnectionError)
    ring = open_ring(disk, Odd(unwrap=fails))
    with pytest.raises(Unavailable, match="no route"):
        ring.add((A,))
    assert tree(disk) == {LOG: None}
    open_ring(disk, Odd()).add((A,))
    with pytest.raises(Unavailable, match="no route"):
        open_ring(disk, Odd(unwrap=fails)).key(A)
    with pytest.raises(Unavailable, match="5 bytes"):
        open_ring(disk, Odd(unwrap=lambda wrapped: b"short")).key(A)
    assert len(open_ring(disk, Odd()).key(A)) == KEY_BYTES


@pytest.mark.parametrize("error", [Unavailable("the key service is being moved"), InvalidInput("key 7 was revoked")])
def test_what_a_provider_says_in_our_own_errors_is_passed_on_as_it_is(error: Exception) -> None:
    def refuses(*_: bytes) -> bytes:
        raise error

    disk = empty_log()
    with pytest.raises(type(error)) as caught:
        open_ring(disk, Odd(wrap=refuses)).add((A,))
    assert caught.value is error
    open_ring(disk, Odd()).add((A,))
    with pytest.raises(type(error)) as caught:
        open_ring(disk, Odd(unwrap=refuses)).key(A)
    assert caught.value is error


def test_a_provider_that_does_not_undo_its_own_work_is_refused_before_a_key_is_used() -> None:
    disk = empty_log()
    ring = open_ring(disk, Odd(unwrap=lambda wrapped: wrapped[:32]))
    with pytest.raises(InvalidInput, match="unwrap"):
        ring.add((A,))
    assert tree(disk) == {LOG: None}


@pytest.mark.parametrize("length", [0, MAX_WRAPPED_BYTES + 1])
def test_a_wrapped_key_that_does_not_fit_is_refused(length: int) -> None:
    disk = empty_log()
    with pytest.raises(InvalidInput, match=str(length)):
        open_ring(disk, Odd(wrap=lambda key: bytes(length))).add((A,))
    assert tree(disk) == {LOG: None}


@pytest.mark.parametrize("align", [0, 512, 4096])
def test_wrapped_keys_of_any_length_are_kept(align: int) -> None:
    disk = empty_log()
    pad = 0
    provider = Odd(wrap=lambda key: key[::-1] + b"x" * pad)
    ring = open_ring(disk, provider, align=align)
    keys: dict[bytes, bytes] = {}
    longest = MAX_WRAPPED_BYTES - KEY_BYTES
    for n, pad in enumerate([0, *range(longest, 0, -37), *range(0, longest, 29)]):  # noqa: B007 - the provider reads it
        stream = stream_id(str(n))
        ring.add((stream,))
        keys[stream] = ring.key(stream)
        if n % 7 == 6:
            ring.destroy((stream_id(str(n - 3)),))
            del keys[stream_id(str(n - 3))]
    later = open_ring(disk.durable_copy(), provider, align=align)
    assert {stream: later.key(stream) for stream in keys} == keys
    assert len(later) == len(keys)


def test_a_file_takes_larger_slots_when_a_longer_wrapped_key_comes() -> None:
    disk = empty_log()
    pad = 0
    provider = Odd(wrap=lambda key: key[::-1] + b"x" * pad)
    ring = open_ring(disk, provider)
    sizes: list[int] = []
    for pad in (0, 52, 53, 180, 181, 436, 0):
        ring.add((stream_id(f"{pad} {len(sizes)}"),))
        sizes.append((len(content(disk, newest(disk))) - HEADER) // len(ring))
    assert sizes == [128, 128, 256, 256, 512, 512, 512]
    assert len(open_ring(disk, provider)) == 7


def test_the_library_is_imported_only_where_keys_are_wrapped(tmp_path: pathlib.Path) -> None:
    program = """
import sys, uuid
from stepstore.log.files import OsFileSystem
from stepstore.log.key_ring import KeyRing
KeyRing.open(OsFileSystem(), sys.argv[1], uuid.uuid4(), None).destroy((bytes(16),))
assert not {"cryptography", "zstandard"} & set(sys.modules), "imported"
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env={**os.environ, **path_of_ours()})


def path_of_ours() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.keywrap", None)
    monkeypatch.delattr("cryptography.hazmat.primitives.keywrap", raising=False)
    with pytest.raises(InvalidInput, match=r'pip install "stepwell\[encryption\]"'):
        LocalKeyProvider(MASTER)


# ---- threads, and everything at once ---------------------------------------------------------------------------------


def test_many_threads_use_one_ring(tmp_path: pathlib.Path) -> None:
    ring = KeyRing.open(OsFileSystem(), str(tmp_path), LOG_UUID, LocalKeyProvider(MASTER), cached=5)
    keys: dict[int, dict[bytes, bytes]] = {}
    errors: list[BaseException] = []
    shared = [stream_id(f"shared {n}") for n in range(20)]

    def work(number: int) -> None:
        try:
            mine: dict[bytes, bytes] = {}
            for n in range(25):
                stream = stream_id(f"{number} {n}")
                ring.add((stream, shared[n % 20]))
                mine[stream] = ring.key(stream)
                mine[shared[n % 20]] = ring.key(shared[n % 20])
                if n % 5 == 4:
                    gone = stream_id(f"{number} {n - 3}")
                    ring.destroy((gone,))
                    del mine[gone]
                    with pytest.raises(KeyDestroyed):
                        ring.key(gone)
                for known, key in mine.items():
                    assert ring.key(known) == key
            keys[number] = mine
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ring.close()
    assert not errors
    later = KeyRing.open(OsFileSystem(), str(tmp_path), LOG_UUID, LocalKeyProvider(MASTER))
    expected = {stream: key for mine in keys.values() for stream, key in mine.items()}
    assert len(later) == len(expected) == 6 * 20 + 20
    assert {stream: later.key(stream) for stream in expected} == expected
    later.close()


def test_a_key_destroyed_while_it_is_being_unwrapped_is_not_remembered() -> None:
    disk, keys = three_appends()

    def unwrap(wrapped: bytes) -> bytes:
        ring.destroy((A,))
        return LocalKeyProvider(MASTER).unwrap(wrapped)

    ring = open_ring(disk, Odd(unwrap=unwrap))
    assert ring.key(A) == keys[A]  # it was asked for before
    with pytest.raises(KeyDestroyed):
        ring.key(A)


STREAMS = [stream_id(f"stream {n}") for n in range(6)]
few_streams = st.lists(st.sampled_from(STREAMS), max_size=4)
operations = st.lists(
    st.tuples(st.sampled_from(["add", "destroy", "reopen", "power cut", "fail"]), few_streams), max_size=12
)


@steady
@given(operations, st.sampled_from([0, 512, 4096]), st.randoms(use_true_random=False))
def test_a_ring_is_a_dict_that_survives(script: list[tuple[str, list[bytes]]], align: int, dice: random.Random) -> None:
    disk = empty_log()
    ring = open_ring(disk, align=align)
    model: dict[bytes, bytes] = {}
    for operation, streams in script:
        if operation == "add":
            ring.add(streams)
            model |= {stream: ring.key(stream) for stream in streams if stream not in model}
        elif operation == "destroy":
            ring.destroy(streams)
            model = {stream: key for stream, key in model.items() if stream not in streams}
        elif operation == "fail":
            files = WatchedFiles(disk, failing_at(dice.randrange(1, 25), errno.EIO))
            try:
                ring = open_ring(files, align=align)
                ring.add(streams)
                files.before = None
                model |= {stream: ring.key(stream) for stream in streams if stream not in model}
            except (OSError, RecoveryFailed):
                ring = open_ring(disk, align=align)
                model |= {stream: ring.key(stream) for stream in streams if stream in ring}
        else:
            disk = clone(disk) if operation == "reopen" else disk.crash_copy(dice.randrange)
            ring = open_ring(disk, align=align)
        assert {stream: ring.key(stream) for stream in STREAMS if stream in ring} == model
        assert len(ring) == len(model)


def streams_on(disk: MemoryFileSystem) -> set[bytes]:
    """The streams in the newest file, by decoding its CBOR."""
    found = [item[3] for item in cbor_items(content(disk, newest(disk)))[1:]]
    return {stream for stream in found if isinstance(stream, bytes)}


def cbor_items(data: bytes) -> list[list[object]]:
    stream = io.BytesIO(data)
    found: list[list[object]] = []
    while stream.tell() < len(data):
        item = cbor2.load(stream)
        found.append(list(item.value if isinstance(item, cbor2.CBORTag) else item))
    return found
