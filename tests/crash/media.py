"""Real media for the crash suites, made on the spot: loop devices, ext4, tmpfs, and a bench that leaves nothing behind.

Everything here needs root on Linux; where it is not to be had, `Skipped` says why. A suite is a process of its own: the
bench moves it into a mount namespace of its own, so that whatever it mounts is gone with it, however it ends. Loop
devices detach themselves with their last user, and every child dies with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

PREFIX = "stepwell-crash-"
BLOCK = 4096

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWNS = 0x20000
_MS_NOATIME, _MS_BIND, _MS_REC, _MS_PRIVATE, _MS_SHARED = 1 << 10, 1 << 12, 1 << 14, 1 << 18, 1 << 20
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LO_AUTOCLEAR, _LO_DIRECT_IO = 4, 16
_BUSY_SECONDS = 10.0


class Skipped(Exception):
    """A suite cannot run here; the message says what is missing."""


# ---- what a suite needs ----------------------------------------------------------------------------------------------


def need_device(path: str) -> None:
    """Raises: `Skipped` unless there is such a device here, and this process may use it."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise Skipped(f"no {path} ({error.strerror})") from error


def need_ext4_on_a_loop() -> None:
    """Have what `make_ext4` and `mounted_image` need. Raises: `Skipped`."""
    need_device("/dev/loop-control")
    need_command("mkfs.ext4", "e2fsprogs")


def need_command(command: str, package: str) -> None:
    """Have a command, installing its Debian package if it is missing. Raises: `Skipped`."""
    if shutil.which(command) is None:
        _install(package)
    if shutil.which(command) is None:
        raise Skipped(f"no {command}, and the package {package} could not be installed")


def _install(package: str) -> None:
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", package]):
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300, check=False
            )


# ---- processes -------------------------------------------------------------------------------------------------------


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it dies. For children, first thing."""
    if hasattr(_libc, "prctl"):  # Linux
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:  # it had died before we asked
        os._exit(1)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def leave_mount_namespace() -> None:
    """Go on in a mount namespace of its own: what is mounted later is unseen outside, except below `shared_place`s.

    Only before the first thread is started. Raises: `OSError`.
    """
    _checked(_libc.unshare(_CLONE_NEWNS), "unshare")


def _own_mount_namespace() -> None:
    try:
        leave_mount_namespace()
        _checked(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "/")
    except OSError as error:
        raise Skipped(f"this process may not mount ({error.strerror})") from error


# ---- mounting --------------------------------------------------------------------------------------------------------


def mount(source: str, target: Path, kind: str, options: str = "") -> None:
    """Mount a file system. Raises: `OSError`."""
    ctypes.set_errno(0)
    _checked(
        _libc.mount(source.encode(), os.fsencode(target), kind.encode(), _MS_NOATIME, options.encode() or None),
        str(target),
    )


def unmount(target: Path) -> None:
    """Unmount; what is busy is waited for. Raises: `OSError` if it stays busy; then it is detached all the same."""
    give_up = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            _checked(_libc.umount2(os.fsencode(target), 0), str(target))
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > give_up:
                _detach(target)
                raise
            time.sleep(0.002)
        else:
            return


def _detach(target: Path) -> None:
    _libc.umount2(os.fsencode(target), _MNT_DETACH)


@contextlib.contextmanager
def unmounting(target: Path) -> Iterator[Path]:
    """Unmount when the block is left. If by an exception, at once: what its frames hold open must not stop it, and the
    kernel takes the rest down when that is closed."""
    try:
        yield target
    except BaseException:
        _detach(target)
        raise
    unmount(target)


@contextlib.contextmanager
def shared_place(target: Path) -> Iterator[Path]:
    """A directory where a child that has left this mount namespace can mount something for this process to see."""
    target.mkdir(exist_ok=True)
    name = os.fsencode(target)
    _checked(_libc.mount(name, name, None, _MS_BIND, None), str(target))
    with unmounting(target):
        _checked(_libc.mount(b"none", name, None, _MS_SHARED, None), str(target))
        yield target


@contextlib.contextmanager
def mounted_tmpfs(target: Path, size: int) -> Iterator[Path]:
    """A tmpfs of `size` bytes at `target`, while the block runs."""
    target.mkdir(exist_ok=True)
    mount("tmpfs", target, "tmpfs", f"size={size},mode=700")
    with unmounting(target):
        yield target


@contextlib.contextmanager
def mounted_image(
    image: Path, target: Path, *, direct_io: bool = False, options: str = "", single_blocks: bool = False
) -> Iterator[Path]:
    """The ext4 file system in the file `image`, on a fresh loop device, mounted at `target` while the block runs.

    With `single_blocks` the device takes one block at a time. On a file that can run out of space it must: the loop
    device passes a write that was cut short off as a whole one, and a disk that lies is not what is looked at here.
    """
    target.mkdir(exist_ok=True)
    device, descriptor = _attach(image, direct_io)
    try:
        if single_blocks:
            queue = Path("/sys/block", Path(device).name, "queue")
            (queue / "max_sectors_kb").write_text(str(BLOCK // 1024))
        mount(device, target, "ext4", options)
    finally:
        os.close(descriptor)  # from here on the mount alone keeps the loop device
    with unmounting(target):
        yield target


def _attach(image: Path, direct_io: bool) -> tuple[str, int]:
    """Put a free loop device on a file. It detaches itself when its last user, this descriptor for one, is gone."""
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
            try:
                number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            finally:
                os.close(control)
            device = f"/dev/loop{number}"
            if not os.path.exists(device):
                os.mknod(device, stat.S_IFBLK | 0o600, os.makedev(7, number))
            descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            flags = _LO_AUTOCLEAR | (_LO_DIRECT_IO if direct_io else 0)
            # struct loop_config: the file, the block size (0: default), a loop_info64 of 232 bytes with its flags at
            # offset 52, and 64 reserved bytes.
            config = struct.pack("=II52xI240x", backing, 0, flags)
            try:
                fcntl.ioctl(descriptor, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(descriptor)
                if error.errno == errno.EBUSY:  # somebody was faster
                    continue
                raise
            return device, descriptor
    finally:
        os.close(backing)


# ---- images ----------------------------------------------------------------------------------------------------------


def make_ext4(image: Path, size: int, *, journal_megabytes: int = 4, options: str = "") -> None:
    """Make `image` an ext4 file system, wholly initialised, so that mounting starts no work in the background."""
    with open(image, "wb") as file:
        file.truncate(size)
    lazy = "lazy_itable_init=0,lazy_journal_init=0" + (f",{options}" if options else "")
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-J", f"size={journal_megabytes}", "-E", lazy, str(image)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def fill_used_blocks(image: Path) -> None:
    """Have every block that an ext4 image uses really there, in the file below it: only free blocks stay holes."""
    told = subprocess.run(["dumpe2fs", str(image)], check=True, capture_output=True, text=True).stdout
    free: list[tuple[int, int]] = []
    for line in told.splitlines():
        if line.startswith("  Free blocks: "):
            for part in filter(None, line.removeprefix("  Free blocks: ").split(", ")):
                one, _, other = part.partition("-")
                free.append((int(one), int(other or one) + 1))
    with open(image, "r+b", buffering=0) as file:
        end = os.fstat(file.fileno()).st_size
        used_from = 0
        for first, behind in [*sorted(free), (end // BLOCK, end // BLOCK)]:
            if first > used_from:
                os.posix_fallocate(file.fileno(), used_from * BLOCK, (first - used_from) * BLOCK)
            used_from = behind


def drop_caches() -> None:
    """Have the kernel forget every clean page."""
    Path("/proc/sys/vm/drop_caches").write_text("3")


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file, leaving holes where the source has them."""
    with open(source, "rb", buffering=0) as old, open(target, "wb", buffering=0) as new:
        size = os.fstat(old.fileno()).st_size
        os.ftruncate(new.fileno(), size)
        end = 0
        while end < size:
            try:
                begin = os.lseek(old.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return
            end = os.lseek(old.fileno(), begin, os.SEEK_HOLE)
            at = begin
            while at < end:
                at += os.pwrite(new.fileno(), os.pread(old.fileno(), min(end - at, 1 << 20), at), at)


# ---- the bench -------------------------------------------------------------------------------------------------------


class Bench:
    """A directory for mount points and images, in a mount namespace of this process alone: `with Bench() as bench:`.

    The directory of a run that was killed is recognised by its free lock and removed. Loop devices and mounts need no
    such care: the kernel takes them back with the last process of the run.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.path = Path()
        self.swept = 0

    def __enter__(self) -> Bench:
        if platform.system() != "Linux" or os.geteuid() != 0:
            raise Skipped("not root on Linux")
        _own_mount_namespace()
        with contextlib.ExitStack() as stack:
            self.swept = sweep()
            # Real path: what is mounted below is named by the kernel without links.
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
            stack.callback(shutil.rmtree, self.path, ignore_errors=True)
            owner = os.open(self.path / "OWNER", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, owner)
            fcntl.flock(owner, fcntl.LOCK_EX)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def enter(self, manager: contextlib.AbstractContextManager[Path]) -> Path:
        """Enter a context that lasts as long as the bench."""
        return self._stack.enter_context(manager)

    def callback(self, function: Callable[[], object]) -> None:
        """Call this when the bench is cleared, before what was set up earlier is taken down."""
        self._stack.callback(function)

    def subdirectory(self, name: str) -> Path:
        """A directory of this name on the bench."""
        made = self.path / name
        made.mkdir()
        return made


def sweep() -> int:
    """Remove the directories of runs that were killed; gives their number. One whose owner lives is left alone."""
    swept = 0
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            owner = os.open(left / "OWNER", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # being made or removed at this moment, or none of ours
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(left, ignore_errors=True)
            swept += 1
        finally:
            os.close(owner)
    return swept
