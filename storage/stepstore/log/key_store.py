"""Where the keys of a log are kept: the newest file in `keys/`, appended to, or replaced by the next."""

from __future__ import annotations

import posixpath
import secrets
import uuid
from collections.abc import Mapping

from stepstore.log.files import File, FileSystem, write_all
from stepstore.log.keys_file import (
    HEADER_BYTES,
    KEYS_DIRECTORY,
    KEYS_NAME,
    VERSION,
    KeysContent,
    KeysHeader,
    Slot,
    encode_header,
    encode_slot,
    key_file_name,
    key_file_numbers,
    parse_keys,
    read_keys,
    slot_bytes_for,
)


class KeyStore:
    """The files of keys of one log that is opened for writing. One caller at a time; all calls block.

    `is_stale`: a file may hold other keys than it should, so that nothing may be appended before `replace`.
    """

    def __init__(self, files: FileSystem, directory: str, log_uuid: uuid.UUID, align: int):
        self._files, self._directory, self._log_uuid, self._align = files, directory, log_uuid, align
        self._folder = posixpath.join(directory, KEYS_DIRECTORY)
        self._number = 0  # of the newest file, or of the newest that may exist
        self._file: File | None = None  # the newest file, as far as it may be appended to
        self._slot_bytes = self._tag = self._slots = 0
        self.is_stale = False

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def recover(self) -> dict[bytes, bytes]:
        """The wrapped keys by stream, all of them on the medium; what a crash left behind is cleaned up.

        Raises: `CorruptLog`, `RecoveryFailed`, `OSError`.
        """
        if self._files.stat(self._folder) is None:
            return {}
        numbers = key_file_numbers(self._files, self._folder)
        self._number = numbers[-1] if numbers else 0
        path = self._path(self._number)
        data = b""
        content = None
        if numbers:
            self._file = self._files.open(path)
            data = read_keys(self._file, path)
            content = parse_keys(data, path, self._number, self._log_uuid, live=False)
        # From here on things are changed. A process that died may have left names that are not on the medium, and
        # nothing that an older file holds may go before the newer one is there for good.
        self._files.sync_directory(self._folder)
        if content is not None:
            self._adopt(content, data)
        self._remove_others()
        return {} if content is None else content.wrapped

    def add(self, wrapped: Mapping[bytes, bytes], former: Mapping[bytes, bytes]) -> None:
        """Make more keys durable beside the former ones. After an error nothing is retried in the file that failed.

        Raises: `OSError`.
        """
        if self._file is None or self.is_stale or slot_bytes_for(wrapped.values()) > self._slot_bytes:
            self.replace({**former, **wrapped})
        else:
            self._append(self._file, wrapped)

    def _path(self, number: int) -> str:
        return posixpath.join(self._folder, key_file_name(number))

    def _adopt(self, content: KeysContent, data: bytes) -> None:
        """Go on with the file as it was found, once all of it is durable; or with a new one, where it is torn or ends
        inside an alignment unit, which the next append must not touch."""
        assert self._file is not None
        self._slot_bytes, self._tag, self._slots = content.header.slot_bytes, content.header.tag, content.slots
        if content.torn or (self._align and len(data) % self._align):
            self.replace(content.wrapped)
        elif content.proven < content.slots:
            # Written again and not just synced: the pages of a failed sync are clean in the page cache, so that they
            # can be read and the next sync succeeds, and they never were on the medium.
            at = HEADER_BYTES + content.proven * self._slot_bytes
            write_all(self._file, at, data[at:])
            self._file.datasync()

    def _append(self, file: File, wrapped: Mapping[bytes, bytes]) -> None:
        slots = self._to_slots(wrapped, self._slots, self._slot_bytes)
        data = b"".join(
            encode_slot(slot, self._slot_bytes, self._tag, number) for number, slot in enumerate(slots, self._slots)
        )
        self.is_stale = True  # until it is known what the file holds
        write_all(file, HEADER_BYTES + self._slots * self._slot_bytes, data)
        file.datasync()
        self._slots += len(slots)
        self.is_stale = False

    def _to_slots(self, wrapped: Mapping[bytes, bytes], first: int, slot_bytes: int) -> list[Slot]:
        """The slots to write from number `first` on, with empty ones up to where the next write may begin."""
        slots = [Slot(first, stream, key) for stream, key in wrapped.items()]
        if self._align:
            end = HEADER_BYTES + (first + len(slots)) * slot_bytes
            slots += [Slot(first, bytes(16), b"")] * (-end % self._align // slot_bytes)
        return slots

    def replace(self, wrapped: Mapping[bytes, bytes]) -> None:
        """Make the next file, with exactly these keys, and remove every other. Raises: `OSError`."""
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
        size, tag = slot_bytes_for(wrapped.values()), secrets.randbits(32)
        slots = self._to_slots(wrapped, 0, size)
        parts = [encode_header(KeysHeader(VERSION, size, len(slots), tag, number, self._log_uuid.bytes))]
        parts += (encode_slot(slot, size, tag, n) for n, slot in enumerate(slots))
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
        self.is_stale = False

    def _remove_others(self) -> None:
        """Remove every file of keys but the newest, unfinished ones included. Only once the newest is durable."""
        newest = posixpath.basename(self._path(self._number))
        others = [name for name in self._files.list_names(self._folder) if KEYS_NAME.fullmatch(name) and name != newest]
        for name in others:
            self._files.unlink(posixpath.join(self._folder, name))
        if others:
            self._files.sync_directory(self._folder)
