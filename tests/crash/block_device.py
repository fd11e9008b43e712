"""A block device that remembers: one file served through FUSE, on which a loop device carries a real file system.

Each block write, each flush, and each marker that somebody sends goes into one log, in the one order in which they
happened: a marker is answered only when it is in the log, so whoever waits for the answer knows that all it had seen
before lies before it. From the log the disk can be rebuilt as a power cut at any write would have left it.

    python -m tests.crash.block_device DIRECTORY      (the server; `logged_device` starts it)
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.crash.media import (
    BLOCK,
    Skipped,
    die_with_parent,
    leave_mount_namespace,
    mounted_image,
    need_command,
    need_device,
    need_ext4_on_a_loop,
    shared_place,
    unmounting,
)

SECTOR = 512
_DISK, _MARKERS = "disk", "markers"
_START_SECONDS = 30.0


class Operation(NamedTuple):
    """One entry of the log: a write of `data` at `offset`, a flush, or a marker with the text `data`."""

    kind: Literal["write", "flush", "marker"]
    offset: int
    data: bytes


class Recording(NamedTuple):
    """What happened to a device: the image it began with, and everything since."""

    base: bytes
    operations: list[Operation]


def need_logged_device() -> None:
    """Have everything that a logged device needs. Raises: `Skipped`."""
    need_device("/dev/fuse")
    need_command("fusermount3", "fuse3")
    need_ext4_on_a_loop()
    try:
        import mfusepy  # noqa: F401
    except ImportError as error:
        raise Skipped("the package mfusepy is not installed") from error
    except OSError as error:
        raise Skipped(f"libfuse cannot be loaded ({error})") from error


# ---- the server ------------------------------------------------------------------------------------------------------


class Device:
    """The content of the disk and its log. FUSE calls from one thread, markers come from others."""

    def __init__(self, base: bytes):
        self._content = bytearray(base)
        self._lock = threading.Lock()
        self.operations: list[Operation] = []

    @property
    def size(self) -> int:
        return len(self._content)

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._content[offset : offset + size])

    def write(self, offset: int, data: bytes) -> int:
        with self._lock:
            self._content[offset : offset + len(data)] = data
            self.operations.append(Operation("write", offset, data))
        return len(data)

    def flush(self) -> None:
        with self._lock:
            self.operations.append(Operation("flush", 0, b""))

    def mark(self, text: bytes) -> None:
        with self._lock:
            self.operations.append(Operation("marker", 0, text))


def _serve(directory: Path) -> None:
    """Serve `directory`/image as `directory`/fuse/disk until it is unmounted; then leave the log in `directory`/log."""
    import mfusepy

    device = Device((directory / "image").read_bytes())

    class OneFile(mfusepy.Operations):  # type: ignore[misc]
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            if path == "/":
                return {"st_mode": 0o40700, "st_nlink": 2}
            if path == f"/{_DISK}":
                return {"st_mode": 0o100600, "st_nlink": 1, "st_size": device.size}
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)

        def open(self, path: str, flags: int) -> int:
            return 1

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return device.read(offset, size)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            return device.write(offset, data)

        def fsync(self, path: str, datasync: int, fh: int) -> int:
            device.flush()
            return 0

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short_name(directory / _MARKERS) as name:
        listener.bind(name)
    listener.listen()
    threading.Thread(target=_accept, args=(listener, device), daemon=True).start()
    mfusepy.FUSE(OneFile(), os.fspath(directory / "fuse"), foreground=True, nothreads=True, fsname="stepwell-crash")
    with open(directory / "log", "wb") as file:
        pickle.dump([tuple(operation) for operation in device.operations], file, protocol=5)


def _accept(listener: socket.socket, device: Device) -> None:
    while True:
        connection, _address = listener.accept()
        threading.Thread(target=_take_markers, args=(connection, device), daemon=True).start()


def _take_markers(connection: socket.socket, device: Device) -> None:
    with connection, connection.makefile("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return  # its sender died in the middle, and has acted on nothing
            device.mark(line[:-1])
            connection.sendall(b".")


@contextlib.contextmanager
def _short_name(path: Path) -> Iterator[str]:
    """Another name of a path: that of a socket may have about a hundred bytes only."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


class Markers:
    """The sender's side: `send` returns once the marker is in the log."""

    def __init__(self, path: str):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short_name(Path(path)) as name:
            self._socket.connect(name)

    def send(self, text: bytes) -> None:
        """Send one marker, a text without line breaks."""
        self._socket.sendall(text + b"\n")
        if self._socket.recv(1) != b".":
            raise ConnectionError("the device has gone")


# ---- the client ------------------------------------------------------------------------------------------------------


class LoggedDevice:
    """A mounted file system on a device that remembers."""

    def __init__(self, directory: Path):
        self._directory = directory
        self.mounted_at = directory / "mounted"
        self.markers = os.fspath(directory / _MARKERS)
        self.recording: Recording | None = None

    def _finish(self) -> None:
        with open(self._directory / "log", "rb") as file:
            operations = [Operation(*operation) for operation in pickle.load(file)]
        self.recording = Recording((self._directory / "image").read_bytes(), operations)


@contextlib.contextmanager
def logged_device(directory: Path, *, options: str = "") -> Iterator[LoggedDevice]:
    """Serve the image in `directory`/image and mount its file system. After the block `recording` holds all of it."""
    device = LoggedDevice(directory)
    command = [sys.executable, "-m", "tests.crash.block_device", os.fspath(directory)]
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(shared_place(directory / "fuse"))
        # In a session of its own: a Ctrl-C must not end the server before what is mounted on it is unmounted.
        server = stack.enter_context(subprocess.Popen(command, start_new_session=True))
        try:
            _wait_for(served / _DISK, server)
            with (
                unmounting(served),
                mounted_image(served / _DISK, device.mounted_at, direct_io=True, options=options),
            ):
                yield device
        except BaseException:
            server.kill()
            raise
        if server.wait(_START_SECONDS) != 0:
            raise RuntimeError(f"the block device ended with status {server.returncode}")
    device._finish()


def _wait_for(path: Path, server: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while not path.exists():
        if server.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"the block device did not start (status {server.returncode})")
        time.sleep(0.005)


# ---- power cuts ------------------------------------------------------------------------------------------------------


class DiskImage:
    """A disk rebuilt from a recording, write by write, that can be looked at as a power cut would leave it.

    What was written before the last flush is on the medium. What was written since then may be there or not.
    """

    def __init__(self, base: bytes):
        self._size = len(base)
        self._durable: dict[int, bytes] = {}
        self.unflushed: list[Operation] = []
        for offset in range(0, len(base), BLOCK):
            block = base[offset : offset + BLOCK]
            if block.count(0) != len(block):
                self._durable[offset] = block

    def apply(self, operation: Operation) -> None:
        """Go one operation on."""
        if operation.kind == "write":
            self.unflushed.append(operation)
        elif operation.kind == "flush":
            for write in self.unflushed:
                _put(self._durable, write.offset, write.data)
            self.unflushed.clear()

    def save(self, path: Path, writes: list[tuple[int, bytes]]) -> None:
        """Write to `path` what is durable, and these writes over it."""
        blocks = dict(self._durable)
        for offset, data in writes:
            _put(blocks, offset, data)
        with open(path, "wb", buffering=0) as file:
            os.ftruncate(file.fileno(), self._size)
            for offset, block in blocks.items():
                os.pwrite(file.fileno(), block, offset)

    def everything(self) -> list[tuple[int, bytes]]:
        """All unflushed writes: what the medium holds if it wrote in order."""
        return [(write.offset, write.data) for write in self.unflushed]

    def subset(self, rng: random.Random) -> list[tuple[int, bytes]]:
        """Some of the unflushed writes, each of them whole."""
        share = rng.random()
        return [(write.offset, write.data) for write in self.unflushed if rng.random() < share]

    def torn(self, rng: random.Random) -> list[tuple[int, bytes]]:
        """Some of the unflushed writes; of most of them only some sectors, of those that change anything. A sector is
        written as a whole or not at all.

        The first block is never torn: the superblock of ext4 has two sectors under one checksum, and a file system
        whose superblock is torn is not mounted but repaired, which is not what is looked at here.
        """
        kept: list[tuple[int, bytes]] = []
        for write in self.unflushed:
            fate = rng.random()
            if fate < 0.15:
                continue
            changed = self._changed_sectors(write)
            if fate > 0.3 and len(changed) > 1 and write.offset > 0:
                changed = sorted(rng.sample(changed, rng.randrange(1, len(changed))))
            kept += [(at, write.data[at - write.offset : at - write.offset + SECTOR]) for at in changed]
        return kept

    def _changed_sectors(self, write: Operation) -> list[int]:
        changed = []
        for at in range(write.offset, write.offset + len(write.data), SECTOR):
            start = at % BLOCK
            old = self._durable.get(at - start, _ZEROS)[start : start + SECTOR]
            if write.data[at - write.offset : at - write.offset + SECTOR] != old:
                changed.append(at)
        return changed


_ZEROS = bytes(BLOCK)


def _put(blocks: dict[int, bytes], offset: int, data: bytes) -> None:
    while data:
        start = offset % BLOCK
        base = offset - start
        part = data[: BLOCK - start]
        if len(part) == BLOCK:
            blocks[base] = part
        else:
            old = blocks.get(base, _ZEROS)
            blocks[base] = old[:start] + part + old[start + len(part) :]
        offset, data = offset + len(part), data[len(part) :]


if __name__ == "__main__":
    die_with_parent()
    # The file system on this device must not be mounted in the namespace of this process: were it the last to leave
    # (when the suite is killed), it would have to unmount that in its exit, and so wait for itself, for ever.
    leave_mount_namespace()
    _serve(Path(sys.argv[1]))
