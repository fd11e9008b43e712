"""Key providers: whatever of the host wraps the keys of streams, and what of theirs is believed."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from types import ModuleType
from typing import Protocol, runtime_checkable

from stepstore.errors import InvalidInput, Unavailable
from stepstore.log.keys_file import MAX_WRAPPED_BYTES

KEY_BYTES = 32
"""Length of a stream's key, and of the master key of a `LocalKeyProvider`."""


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


class CheckedProvider:
    """The provider of one log, or none: what it does wrong is told as it concerns the caller."""

    def __init__(self, provider: KeyProvider | None, directory: str):
        self._provider, self._directory = provider, directory
        self._is_checked = False

    @property
    def is_there(self) -> bool:
        """Whether there is one."""
        return self._provider is not None

    def _the_provider(self) -> KeyProvider:
        if self._provider is None:
            raise Unavailable(
                f"the log in {self._directory!r} has encrypted streams; open the memory with the key_provider they "
                "were written with"
            )
        return self._provider

    def wrap(self, key: bytes) -> bytes:
        """The key wrapped. Raises: `Unavailable`, `InvalidInput`."""
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

    def unwrap(self, wrapped: bytes) -> bytes:
        """The key. Raises: `Unavailable`, `InvalidInput`."""
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

    def check(self, key: bytes, wrapped: bytes, former: Mapping[bytes, bytes]) -> None:
        """Before the first key of this life is used: the provider must undo its own work, and that of former lives.

        Otherwise records would be written that nobody can read, or with two master keys.
        Raises: `Unavailable`, `InvalidInput`.
        """
        if self._is_checked:
            return
        if former:
            self.unwrap(next(iter(former.values())))
        if self.unwrap(wrapped) != key:
            raise InvalidInput("key_provider: its `unwrap` does not give back the key that its `wrap` was given")
        self._is_checked = True


def not_installed(what: str, extra: str) -> InvalidInput:
    """The error for a batch that is `what` where the library of `extra` is missing."""
    return InvalidInput(f'batches are {what}, which needs a library: pip install "stepwell[{extra}]"')


def _keywrap() -> ModuleType:
    try:
        from cryptography.hazmat.primitives import keywrap
    except ImportError as error:
        raise not_installed("encrypted", "encryption") from error
    return keywrap
