"""The keys of encrypted streams: made, wrapped by the host's key provider, kept in `keys/`, and destroyed.

Every encrypted stream has a random 256-bit key. The log keeps it only wrapped (encrypted under a key of the host's that
the log never holds), in one file:

    keys/KEYS-<n> = header (512 bytes), *slot, zeros
    header        = 55799(["stepwell keys", version, slot bytes, proven, tag, n, log uuid, padding, crc])
    slot          = [tag, number, durable, stream, wrapped key, padding, crc]

Like a segment it is a CBOR sequence of fixed-width items, and a CRC is the CRC-32 of all bytes of its item before it. A
slot takes 128, 256 or 512 bytes, whichever holds the longest wrapped key, so it never crosses a sector and is on the
medium as a whole or not at all: a crash in an append leaves zeros or the end of the file where a slot should be, never
half a slot. `durable` in a slot, and `proven` in the header, say how many slots were durable when it was written: one
that is missing although it was durable is damage, and so is one that is neither whole nor zero. `tag` is random and
ties the slots to their file. A slot whose wrapped key is empty only fills an alignment unit.

Destroying a key writes the next file without it and removes the old one; the highest number counts. The medium may keep
the freed blocks for a while; what is in them is wrapped.

Nothing of a torn append goes to quarantine: the keys in it have encrypted nothing, and a copy would outlive their end.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import secrets
import stat
import struct
import threading
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import NamedTuple, Protocol, runtime_checkable

from stepstore.errors import CorruptLog, InvalidInput, KeyDestroyed, RecoveryFailed, Unavailable
from stepstore.log.files import File, FileSystem, write_all

KEY_BYTES = 32
"""Length of a stream's key, and of the master key of a `LocalKeyProvider`."""
KEYS_DIRECTORY = "keys"
CACHED_KEYS = 16_384
"""Keys kept unwrapped in memory by default; about 200 bytes each."""


# ---- providers -------------------------------------------------------------------------------------------------------


@runtime_checkable
class KeyProvider(Protocol):
    """Wraps the keys of streams, and unwraps them: a key management service, a key ring of the system, or a file.

    Both calls may block, are made in worker threads, and by several at once. What they raise reaches the caller as
    `Unavailable`, unless it is that or `InvalidInput` already.
    """

    def wrap(self, key: bytes) -> bytes:
        """`key` (32 bytes) encrypted and authenticated, in at most `MAX_WRAPPED_BYTES`."""
        ...

    def unwrap(self, wrapped: bytes) -> bytes:
        """The key that `wrap` gave `wrapped` for, whenever that was."""
        ...


class LocalKeyProvider:
    """Wraps keys with a master key that the host keeps (AES key wrap, RFC 3394).

    Whoever has the master key and the log can read everything that was not destroyed; without it nothing encrypted can
    be read ever again. Raises: `InvalidInput` if it is not 32 bytes, or the library is missing.
    """

    def __init__(self, master_key: bytes):
        if len(master_key) != KEY_BYTES:
            raise InvalidInput(f"master_key: {len(master_key)} bytes instead of {KEY_BYTES}")
        self._master_key = bytes(master_key)
        self._keywrap = _keywrap()

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> LocalKeyProvider:
        """The provider whose master key is the content of a file: 32 random bytes that only the owner may read.

        Raises: `InvalidInput` if the file cannot be read, is readable or writable by others, or is not 32 bytes long.
        """
        name = os.fspath(path)
        try:
            # Not blocking: opening a FIFO would wait for somebody to write to it.
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                found = os.fstat(descriptor)
                content = os.read(descriptor, KEY_BYTES + 1) if stat.S_ISREG(found.st_mode) else b""
            finally:
                os.close(descriptor)
        except OSError as error:
            raise InvalidInput(f"key file: {name!r} cannot be read ({os.strerror(error.errno or 0)})") from error
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise InvalidInput(
                f"key file: {name!r} has mode {stat.S_IMODE(found.st_mode):04o}, so that others than its owner may use "
                "it; give it mode 0600"
            )
        if len(content) != KEY_BYTES:
            raise InvalidInput(
                f"key file: {name!r} is not a file of {KEY_BYTES} bytes. `(umask 077; head -c 32 /dev/urandom > FILE)` "
                "makes one."
            )
        return cls(content)

    def wrap(self, key: bytes) -> bytes:
        """`key` wrapped, 8 bytes longer."""
        wrapped: bytes = self._keywrap.aes_key_wrap(self._master_key, key)
        return wrapped

    def unwrap(self, wrapped: bytes) -> bytes:
        """The key. Raises: `InvalidInput` if it was wrapped with another master key, or altered."""
        try:
            key: bytes = self._keywrap.aes_key_unwrap(self._master_key, wrapped)
        except self._keywrap.InvalidUnwrap as error:
            raise InvalidInput(
                "key_provider: its master key is not the one that the keys of this log were wrapped with"
            ) from error
        return key


def not_installed(what: str, extra: str) -> InvalidInput:
    """The error for a batch that is `what` where the library of `extra` is missing."""
    return InvalidInput(f'batches are {what}, which needs a library: pip install "stepwell[{extra}]"')


def _keywrap() -> ModuleType:
    try:
        from cryptography.hazmat.primitives import keywrap
    except ImportError as error:
        raise not_installed("encrypted", "encryption") from error
    return keywrap


# ---- the file --------------------------------------------------------------------------------------------------------

_HEADER_BYTES = 512
_VERSION = 1
_U32, _U64, _BYTES16, _BYTES, _TEXT13 = 0x1A, 0x1B, 0x50, 0x59, 0x6D
_MAGIC = b"\xd9\xd9\xf7" + b"\x89" + bytes([_TEXT13]) + b"stepwell keys"  # tag 55799, array(9), text(13)
_HEADER = struct.Struct(">" + "BI" * 4 + "BQ" + "B16s" + "BH")
_HEADER_TYPES = (_U32, _U32, _U32, _U32, _U64, _BYTES16, _BYTES)
_SLOT = struct.Struct(">B" + "BI" * 3 + "B16s" + "BH")
_SLOT_TYPES = (_U32, _U32, _U32, _BYTES16, _BYTES)
_ARRAY7 = 0x87
_BYTES_HEAD = struct.Struct(">BH")
_CRC = struct.Struct(">BI")
_SLOT_OVERHEAD = _SLOT.size + _BYTES_HEAD.size + _CRC.size
_SLOT_BYTES = (128, 256, 512)
_LARGEST_FILE_BYTES = 1024 * 1024 * 1024
MAX_WRAPPED_BYTES = _SLOT_BYTES[-1] - _SLOT_OVERHEAD
"""The longest wrapped key that fits, in bytes."""
_NAME = re.compile(r"KEYS-([1-9]\d{0,17})(\.tmp)?")
_ATTEMPTS = 10


class _Header(NamedTuple):
    version: int
    slot_bytes: int
    proven: int
    tag: int
    number: int
    log_uuid: bytes


def _encode_header(header: _Header) -> bytes:
    padding = _HEADER_BYTES - len(_MAGIC) - _HEADER.size - _CRC.size
    flat = [part for pair in zip(_HEADER_TYPES, (*header, padding), strict=True) for part in pair]
    data = _MAGIC + _HEADER.pack(*flat) + bytes(padding)
    return data + _CRC.pack(_U32, zlib.crc32(data))


def _parse_header(data: bytes) -> _Header | None:
    if len(data) < _HEADER_BYTES or not data.startswith(_MAGIC):
        return None
    flat = _HEADER.unpack_from(data, len(_MAGIC))
    if flat[::2] != _HEADER_TYPES or not _crc_is_sound(data[:_HEADER_BYTES]):
        return None
    return _Header(*flat[1:-2:2])


class _Slot(NamedTuple):
    durable: int
    stream: bytes
    wrapped: bytes


def _encode_slot(slot: _Slot, slot_bytes: int, tag: int, number: int) -> bytes:
    durable, stream, wrapped = slot
    values = (tag, number, durable, stream, len(wrapped))
    flat = [part for pair in zip(_SLOT_TYPES, values, strict=True) for part in pair]
    padding = slot_bytes - _SLOT_OVERHEAD - len(wrapped)
    data = _SLOT.pack(_ARRAY7, *flat) + wrapped + _BYTES_HEAD.pack(_BYTES, padding) + bytes(padding)
    return data + _CRC.pack(_U32, zlib.crc32(data))


def _parse_slot(data: bytes, tag: int, number: int) -> _Slot | None:
    head = _SLOT.unpack_from(data)
    found_tag, found_number, durable, stream, length = head[2::2]
    if (
        head[0] != _ARRAY7
        or head[1::2] != _SLOT_TYPES
        or not _crc_is_sound(data)
        or (found_tag, found_number) != (tag, number)
        or length > len(data) - _SLOT_OVERHEAD
    ):
        return None
    return _Slot(durable, stream, data[_SLOT.size : _SLOT.size + length])


def _crc_is_sound(item: bytes) -> bool:
    return _CRC.unpack_from(item, len(item) - _CRC.size) == (_U32, zlib.crc32(item[: -_CRC.size]))


def _slot_bytes_for(wrapped: Iterable[bytes]) -> int:
    longest = max(map(len, wrapped), default=0)
    return next(size for size in _SLOT_BYTES if longest <= size - _SLOT_OVERHEAD)


class _Content(NamedTuple):
    """What a KEYS file holds. Slots [proven, slots) may be not on the medium; `torn`: not all of those are whole."""

    header: _Header
    wrapped: dict[bytes, bytes]
    slots: int
    proven: int
    torn: bool


def _parse(data: bytes, path: str, number: int, log_uuid: uuid.UUID, *, live: bool) -> _Content:
    """Judge a KEYS file. With `live` (a writer may be at it) a slot that nothing proves durable may be half there."""

    def corrupt(what: str, offset: int = 0, row: int = 0) -> CorruptLog:
        return CorruptLog(
            f"{path!r} is damaged at offset {offset}: {what}. Restore the directory {KEYS_DIRECTORY!r} from a backup; "
            "nothing was changed.",
            file=path,
            offset=offset,
            row=row,
        )

    header = _parse_header(data)
    if header is None:
        raise corrupt("its header is not what was written")
    if header.version != _VERSION:
        raise RecoveryFailed(
            f"{path!r} has version {header.version}; this Stepwell reads version {_VERSION}. Nothing was changed; open "
            "it with a newer Stepwell.",
            file=path,
        )
    if header.log_uuid != log_uuid.bytes:
        raise corrupt("it belongs to another log", row=13)
    if header.number != number or header.slot_bytes not in _SLOT_BYTES:
        raise corrupt("its header contradicts its name or itself")
    size = header.slot_bytes
    wrapped: dict[bytes, bytes] = {}
    proven, holes, rotten = header.proven, [], []
    slots = -(-(len(data) - _HEADER_BYTES) // size)
    for n in range(slots):
        at = _HEADER_BYTES + n * size
        piece = data[at : at + size]
        if len(piece) < size or not piece.strip(b"\0"):
            holes.append(n)
            continue
        slot = _parse_slot(piece, header.tag, n)
        if slot is None:
            rotten.append(n)
            continue
        if slot.stream in wrapped:
            raise corrupt("a stream has two keys", at)
        proven = max(proven, slot.durable)
        if slot.wrapped:
            wrapped[slot.stream] = slot.wrapped
    whole = min(holes + rotten, default=slots)
    if whole < proven:
        raise corrupt(f"slot {whole} was durable and is not what was written", _HEADER_BYTES + whole * size)
    if rotten and not live:
        raise corrupt(f"slot {rotten[0]} is not what was written", _HEADER_BYTES + rotten[0] * size)
    return _Content(header, wrapped, slots, proven, whole < slots)


# ---- the ring --------------------------------------------------------------------------------------------------------


class KeyRing:
    """The keys of one log. Any number of threads may use it at once; all calls may block.

    A ring without a provider neither makes nor unwraps keys, but destroys them. One that is opened for reading only
    changes nothing; it sees the keys that a writer beside it adds, and when it looks for one, it forgets the destroyed.
    """

    def __init__(
        self,
        files: FileSystem,
        directory: str,
        log_uuid: uuid.UUID,
        provider: KeyProvider | None,
        *,
        read_only: bool = False,
        align: int = 0,
        cached: int = CACHED_KEYS,
    ):
        """Use `open`, which looks at what is there."""
        self.log_uuid = log_uuid
        self._files, self._directory = files, directory
        self._folder = posixpath.join(directory, KEYS_DIRECTORY)
        self._provider, self._read_only, self._align, self._cached = provider, read_only, align, cached
        self._changing = threading.Lock()  # one change of the file at a time
        self._lock = threading.Lock()  # the two dicts below; nobody blocks while holding it
        self._wrapped: dict[bytes, bytes] = {}
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()
        self._provider_checked = False
        self._number = 0  # of the newest file, or of the newest that may exist
        self._file: File | None = None  # the newest file, as far as it may be appended to
        self._slot_bytes = self._tag = self._slots = 0
        self._stale = False  # a file may hold other keys than `_wrapped`
        self._seen: tuple[int, int] | None = None  # number and size of the whole file a read-only ring read last

    @classmethod
    def open(
        cls,
        files: FileSystem,
        directory: str,
        log_uuid: uuid.UUID,
        provider: KeyProvider | None,
        *,
        read_only: bool = False,
        align: int = 0,
        cached: int = CACHED_KEYS,
    ) -> KeyRing:
        """The keys of the log in `directory`, whose LOCK the caller holds unless `read_only`.

        What a crash left behind is cleaned up, and every key that the ring then has is on the medium. Creates nothing
        where there are no keys. Does not call the provider. `align` is that of `LogOptions`; at most `cached` keys are
        kept unwrapped in memory.
        Raises: `CorruptLog`, `RecoveryFailed`.
        """
        ring = cls(files, directory, log_uuid, provider, read_only=read_only, align=align, cached=cached)
        try:
            if read_only:
                ring._look_again()
            else:
                ring._recover()
        except OSError as error:
            ring.close()
            raise RecoveryFailed.from_os_error("open the keys in", error, file=ring._folder) from error
        except BaseException:
            ring.close()
            raise
        return ring

    @property
    def makes_keys(self) -> bool:
        """Whether new streams can get a key."""
        return self._provider is not None and not self._read_only

    def __contains__(self, stream: object) -> bool:
        return stream in self._wrapped

    def __len__(self) -> int:
        return len(self._wrapped)

    def key(self, stream: bytes) -> bytes:
        """The key of a stream, 32 bytes.

        Raises: `KeyDestroyed` if the ring has none; `Unavailable` if there is no provider or it fails; `InvalidInput`
        from a `LocalKeyProvider` with another master key. A read-only ring also raises `CorruptLog`, `RecoveryFailed`.
        """
        with self._lock:
            key = self._cache.get(stream)
            if key is not None:
                self._cache.move_to_end(stream)
                return key
            wrapped = self._wrapped.get(stream)
        if wrapped is None and self._read_only:
            try:
                self._look_again()
            except OSError as error:
                raise RecoveryFailed.from_os_error("read the keys in", error, file=self._folder) from error
            wrapped = self._wrapped.get(stream)
        if wrapped is None:
            raise KeyDestroyed(
                f"the records of stream {stream.hex()} are encrypted and {self._folder!r} has no key for them; "
                "deleting a stream destroys its key",
                stream=stream,
            )
        key = self._unwrap(wrapped)
        with self._lock:
            if self._wrapped.get(stream) == wrapped:  # not destroyed meanwhile
                self._remember(stream, key)
        return key

    def add(self, streams: Iterable[bytes]) -> None:
        """Give each of the streams (16-byte ids) a key that has none. When this returns, they are on the medium.

        After an error none of them has one, and calling again is safe: nothing is retried in the file that failed.
        Raises: `OSError`; `Unavailable` if there is no provider or it fails; `InvalidInput` if what it gives is unfit.
        """
        assert not self._read_only
        with self._changing:
            made: dict[bytes, bytes] = {}
            for stream in streams:
                if len(stream) != 16:
                    raise InvalidInput(f"stream: an id of {len(stream)} bytes instead of 16")
                if stream not in self._wrapped:
                    made[stream] = secrets.token_bytes(KEY_BYTES)
            if not made:
                return
            wrapped = {stream: self._wrap(key) for stream, key in made.items()}
            self._check_provider(*next(zip(made.values(), wrapped.values(), strict=True)))
            if self._file is None or self._stale or _slot_bytes_for(wrapped.values()) > self._slot_bytes:
                self._replace({**self._wrapped, **wrapped})
            else:
                self._append(self._file, wrapped)
            with self._lock:
                self._wrapped.update(wrapped)
                for stream, key in made.items():
                    self._remember(stream, key)

    def destroy(self, streams: Iterable[bytes]) -> None:
        """Destroy the keys of these streams, as far as they have one. When this returns, no file holds them.

        After an error they are gone from this ring and may still be on the medium; calling again (with any streams, or
        none) or `finish_destroying` at the next opening completes it.
        Raises: `OSError`.
        """
        assert not self._read_only
        with self._changing:
            streams = list(streams)
            with self._lock:
                for stream in streams:
                    if self._wrapped.pop(stream, None) is not None:
                        self._cache.pop(stream, None)
                        self._stale = True
            if self._stale:
                self._replace(self._wrapped)

    def finish_destroying(self, deleted: Iterable[bytes]) -> None:
        """At an opening: destroy the key of every deleted stream that still has one, because a crash came between the
        tombstone and `destroy`.

        Raises: `RecoveryFailed`; repeating the opening is safe.
        """
        try:
            self.destroy(deleted)
        except OSError as error:
            raise RecoveryFailed.from_os_error("destroy keys in", error, file=self._folder) from error

    def close(self) -> None:
        """Close the file and forget the unwrapped keys."""
        with self._lock:
            self._cache.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    # ---- the provider ------------------------------------------------------------------------------------------------

    def _remember(self, stream: bytes, key: bytes) -> None:
        self._cache[stream] = key
        self._cache.move_to_end(stream)
        while len(self._cache) > self._cached:
            self._cache.popitem(last=False)

    def _the_provider(self) -> KeyProvider:
        if self._provider is None:
            raise Unavailable(
                f"the log in {self._directory!r} has encrypted streams; open the memory with the key_provider they "
                "were written with"
            )
        return self._provider

    def _wrap(self, key: bytes) -> bytes:
        provider = self._the_provider()
        try:
            wrapped = provider.wrap(key)
        except (Unavailable, InvalidInput):
            raise
        except Exception as error:
            raise Unavailable(f"the key provider could not wrap a key ({error!r})") from error
        if not 0 < len(wrapped) <= MAX_WRAPPED_BYTES:
            raise InvalidInput(
                f"key_provider: it wrapped a key in {len(wrapped)} bytes; 1 to {MAX_WRAPPED_BYTES} can be kept"
            )
        return wrapped

    def _unwrap(self, wrapped: bytes) -> bytes:
        provider = self._the_provider()
        try:
            key = provider.unwrap(wrapped)
        except (Unavailable, InvalidInput):
            raise
        except Exception as error:
            raise Unavailable(f"the key provider could not unwrap the key of a stream ({error!r})") from error
        if len(key) != KEY_BYTES:
            raise Unavailable(f"the key provider unwrapped a key of {len(key)} bytes instead of {KEY_BYTES}")
        return key

    def _check_provider(self, key: bytes, wrapped: bytes) -> None:
        """Before the first key of this life is used: the provider must undo its own work, and that of former lives.

        Otherwise records would be written that nobody can read, or with two master keys.
        """
        if self._provider_checked:
            return
        if self._wrapped:
            self._unwrap(next(iter(self._wrapped.values())))
        if self._unwrap(wrapped) != key:
            raise InvalidInput("key_provider: its `unwrap` does not give back the key that its `wrap` was given")
        self._provider_checked = True

    # ---- the file ----------------------------------------------------------------------------------------------------

    def _path(self, number: int) -> str:
        return posixpath.join(self._folder, f"KEYS-{number}")

    def _numbers(self) -> list[int]:
        if self._files.stat(self._folder) is None:
            return []
        matches = map(_NAME.fullmatch, self._files.list_names(self._folder))
        return sorted(int(match[1]) for match in matches if match and not match[2])

    def _recover(self) -> None:
        if self._files.stat(self._folder) is None:
            return
        numbers = self._numbers()
        self._number = numbers[-1] if numbers else 0
        path = self._path(self._number)
        data = b""
        content = None
        if numbers:
            self._file = self._files.open(path)
            data = _read(self._file, path)
            content = _parse(data, path, self._number, self.log_uuid, live=False)
        # From here on things are changed. A process that died may have left names that are not on the medium, and
        # nothing that an older file holds may go before the newer one is there for good.
        self._files.sync_directory(self._folder)
        if content is not None:
            self._adopt(content, data)
        self._remove_others()

    def _adopt(self, content: _Content, data: bytes) -> None:
        """Go on with the file as it was found, once all of it is durable; or with a new one, where it is torn or ends
        inside an alignment unit, which the next append must not touch."""
        assert self._file is not None
        self._wrapped = content.wrapped
        self._slot_bytes, self._tag, self._slots = content.header.slot_bytes, content.header.tag, content.slots
        if content.torn or (self._align and len(data) % self._align):
            self._replace(self._wrapped)
        elif content.proven < content.slots:
            # Written again and not just synced: the pages of a failed sync are clean in the page cache, so that they
            # can be read and the next sync succeeds, and they never were on the medium.
            at = _HEADER_BYTES + content.proven * self._slot_bytes
            write_all(self._file, at, data[at:])
            self._file.datasync()

    def _look_again(self) -> None:
        """What a ring opened for reading does instead of `_recover`, and again when it misses a key."""
        with self._changing:
            for _ in range(_ATTEMPTS):
                numbers = self._numbers()
                if not numbers:
                    self._show({}, None)
                    return
                path = self._path(numbers[-1])
                try:
                    file = self._files.open(path, write=False)
                except FileNotFoundError:  # the writer replaced it meanwhile
                    continue
                try:
                    seen = (numbers[-1], file.size())
                    if seen == self._seen:
                        return
                    data = _read(file, path)
                finally:
                    file.close()
                content = _parse(data, path, numbers[-1], self.log_uuid, live=True)
                self._show(content.wrapped, None if content.torn else (numbers[-1], len(data)))
                return
        raise OSError(errno.EAGAIN, f"the file with the highest number vanished {_ATTEMPTS} times", self._folder)

    def _show(self, wrapped: dict[bytes, bytes], seen: tuple[int, int] | None) -> None:
        with self._lock:
            self._wrapped, self._seen = wrapped, seen
            for stream in [stream for stream in self._cache if stream not in wrapped]:
                del self._cache[stream]

    def _append(self, file: File, wrapped: Mapping[bytes, bytes]) -> None:
        slots = self._to_slots(wrapped, self._slots, self._slot_bytes)
        data = b"".join(
            _encode_slot(slot, self._slot_bytes, self._tag, number) for number, slot in enumerate(slots, self._slots)
        )
        self._stale = True  # until it is known what the file holds
        write_all(file, _HEADER_BYTES + self._slots * self._slot_bytes, data)
        file.datasync()
        self._slots += len(slots)
        self._stale = False

    def _to_slots(self, wrapped: Mapping[bytes, bytes], first: int, slot_bytes: int) -> list[_Slot]:
        """The slots to write from number `first` on, with empty ones up to where the next write may begin."""
        slots = [_Slot(first, stream, key) for stream, key in wrapped.items()]
        if self._align:
            end = _HEADER_BYTES + (first + len(slots)) * slot_bytes
            slots += [_Slot(first, bytes(16), b"")] * (-end % self._align // slot_bytes)
        return slots

    def _replace(self, wrapped: Mapping[bytes, bytes]) -> None:
        """Make the next file, with exactly these keys, and remove every other."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._files.stat(self._folder) is None:
            self._files.make_directory(self._folder)
        self._files.sync_directory(self._directory)
        number = self._number + 1
        temporary = f"{self._path(number)}.tmp"
        if self._files.stat(temporary) is not None:
            self._files.unlink(temporary)
        size, tag = _slot_bytes_for(wrapped.values()), secrets.randbits(32)
        slots = self._to_slots(wrapped, 0, size)
        parts = [_encode_header(_Header(_VERSION, size, len(slots), tag, number, self.log_uuid.bytes))]
        parts += (_encode_slot(slot, size, tag, n) for n, slot in enumerate(slots))
        file = self._files.open(temporary, create=True)
        try:
            write_all(file, 0, b"".join(parts))
            file.datasync()
            self._number = number  # from here on it may exist whatever happens: the next attempt takes another
            self._files.rename(temporary, self._path(number))
            self._files.sync_directory(self._folder)
            self._remove_others()
        except BaseException:
            file.close()
            raise
        self._file, self._slot_bytes, self._tag, self._slots = file, size, tag, len(slots)
        self._stale = False

    def _remove_others(self) -> None:
        """Remove every file of keys but the newest, unfinished ones included. Only once the newest is durable."""
        newest = posixpath.basename(self._path(self._number))
        others = [name for name in self._files.list_names(self._folder) if _NAME.fullmatch(name) and name != newest]
        for name in others:
            self._files.unlink(posixpath.join(self._folder, name))
        if others:
            self._files.sync_directory(self._folder)


def _read(file: File, path: str) -> bytes:
    size = file.size()
    if size > _LARGEST_FILE_BYTES:
        raise OSError(errno.EFBIG, f"{size:,} bytes of keys, which are more than can be held in memory", path)
    data = file.read(0, size)
    if len(data) < size:
        raise OSError(errno.EIO, f"a read ended after {len(data)} bytes although the file is longer", path)
    return data


def check_keys(files: FileSystem, directory: str, log_uuid: uuid.UUID, *, live: bool) -> None:
    """Check every byte of the keys of a log without touching them. With `live` a process may be writing at their end.

    Raises: `CorruptLog`, `RecoveryFailed` (a newer format), `OSError`.
    """
    folder = posixpath.join(directory, KEYS_DIRECTORY)
    if files.stat(folder) is None:
        return
    for name in files.list_names(folder):
        match = _NAME.fullmatch(name)
        if match is None or match[2]:
            continue
        path = posixpath.join(folder, name)
        file = files.open(path, write=False)
        try:
            _parse(_read(file, path), path, int(match[1]), log_uuid, live=live)
        finally:
            file.close()
