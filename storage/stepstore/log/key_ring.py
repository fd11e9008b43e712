"""The keys of encrypted streams: made, wrapped by the host's key provider, kept in `keys/`, and destroyed."""

from __future__ import annotations

import errno
import posixpath
import secrets
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterable

from stepstore.errors import InvalidInput, KeyDestroyed, RecoveryFailed
from stepstore.log.files import FileSystem
from stepstore.log.key_provider import KEY_BYTES, CheckedProvider, KeyProvider
from stepstore.log.key_store import KeyStore
from stepstore.log.keys_file import KEYS_DIRECTORY, key_file_name, key_file_numbers, parse_keys, read_keys

CACHED_KEYS = 16_384
"""Keys kept unwrapped in memory by default; about 200 bytes each."""
_ATTEMPTS = 10


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
        self._files = files
        self._folder = posixpath.join(directory, KEYS_DIRECTORY)
        self._read_only, self._cached = read_only, cached
        self._provider = CheckedProvider(provider, directory)
        self._store = KeyStore(files, directory, log_uuid, align)
        self._changing = threading.Lock()  # one change of the file at a time
        self._lock = threading.Lock()  # the two dicts below; nobody blocks while holding it
        self._wrapped: dict[bytes, bytes] = {}
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()
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
                ring._wrapped = ring._store.recover()
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
        return self._provider.is_there and not self._read_only

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
        key = self._provider.unwrap(wrapped)
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
            wrapped = {stream: self._provider.wrap(key) for stream, key in made.items()}
            self._provider.check(*next(zip(made.values(), wrapped.values(), strict=True)), self._wrapped)
            self._store.add(wrapped, self._wrapped)
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
                        self._store.is_stale = True
            if self._store.is_stale:
                self._store.replace(self._wrapped)

    def finish_destroying(self, deleted: Iterable[bytes]) -> None:
        """At an opening: destroy the key of every deleted stream that still has one, because a crash came between the
        tombstone and `destroy`.

        Raises: `RecoveryFailed`; repeating the opening is safe.
        """
        try:
            self.destroy(deleted)
        except OSError as error:
            raise RecoveryFailed.from_os_error("destroy keys in", error, file=self._folder) from error

    def forked(self) -> None:
        """This is a child of the process: whichever thread held a lock does not exist here, and would never let go."""
        self._changing, self._lock = threading.Lock(), threading.Lock()

    def close(self) -> None:
        """Close the file and forget the unwrapped keys."""
        with self._lock:
            self._cache.clear()
        self._store.close()

    def _remember(self, stream: bytes, key: bytes) -> None:
        self._cache[stream] = key
        self._cache.move_to_end(stream)
        while len(self._cache) > self._cached:
            self._cache.popitem(last=False)

    def _look_again(self) -> None:
        """What a ring opened for reading does instead of recovering, and again when it misses a key."""
        with self._changing:
            for _ in range(_ATTEMPTS):
                numbers = key_file_numbers(self._files, self._folder)
                if not numbers:
                    self._show({}, None)
                    return
                path = posixpath.join(self._folder, key_file_name(numbers[-1]))
                try:
                    file = self._files.open(path, write=False)
                except FileNotFoundError:  # the writer replaced it meanwhile
                    continue
                try:
                    seen = (numbers[-1], file.size())
                    if seen == self._seen:
                        return
                    data = read_keys(file, path)
                finally:
                    file.close()
                content = parse_keys(data, path, numbers[-1], self.log_uuid, live=True)
                self._show(content.wrapped, None if content.torn else (numbers[-1], len(data)))
                return
        raise OSError(errno.EAGAIN, f"the file with the highest number vanished {_ATTEMPTS} times", self._folder)

    def _show(self, wrapped: dict[bytes, bytes], seen: tuple[int, int] | None) -> None:
        with self._lock:
            self._wrapped, self._seen = wrapped, seen
            for stream in [stream for stream in self._cache if stream not in wrapped]:
                del self._cache[stream]
