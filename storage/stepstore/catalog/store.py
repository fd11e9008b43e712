"""The SQLite file of a catalog. All calls block, and one thread at a time uses a connection."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import trio

from stepstore.catalog.schema import CatalogSchema

T = TypeVar("T")

_BESIDE = ("", "-wal", "-shm", "-journal")
_MOST_ROWS = 1_024
"""Of one statement."""
_FEW_ROWS = (16, 4, 1)
"""What is less than two of the first is cut into such pieces, so that SQLite need not compile each number anew."""
_VARIABLES = 32_000
_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = NORMAL",  # a transaction that a power cut takes takes its cursor along: no commit needs a sync
    "wal_autocheckpoint = 16384",  # 64 MiB
    "cache_size = -32768",  # 32 MiB for each connection
    "temp_store = MEMORY",  # what is sorted, too: of a catalog in memory nothing may reach a file
)
_CATALOG = "CREATE TABLE catalog (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
_PARTS_OF_FULL_TEXT = ("data", "idx", "docsize", "config")
_LARGEST_HOLE = 64 * 1024**2
_MOST_PACKED = 64
"""How many bytes a file system that compresses may make of one on the medium."""
_CODES_OF_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Change(NamedTuple):
    """One statement and the rows it is for; `{values}` in it becomes VALUES with many of them. A statement for many
    rows runs without the interpreter's lock, so that a busy event loop and it do not wait for each other row by row.

    `again`: it is repeated for the same rows until it changes nothing more.
    """

    statement: str
    rows: Sequence[tuple[Any, ...]]
    again: bool = False


class CatalogStore:
    """A catalog at `path`, or in memory where that is None. `open` before anything else."""

    def __init__(self, path: str | None, schema: CatalogSchema):
        self.path, self.schema = path, schema
        self.cursor = ""
        """How far it is folded, as it stands in the file; "" for nothing at all."""
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open the file. One that is damaged, or made by another declaration, is dropped and begun anew.

        One that is open is asked for its cursor again: whether a transaction that failed took effect, it alone knows.
        Raises: `sqlite3.Error`.
        """
        if self._writer is not None:
            self.cursor = self._stored("cursor") or ""
            return
        if self.path is not None and not _can_be_a_catalog(self.path):
            self.drop()
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.drop()
            self._connect()

    def _connect(self) -> None:
        self._writer = self._connection()
        try:
            if not self._is_as_declared():
                self._begin_anew()
            else:
                self.cursor = self._stored("cursor") or ""
            self._reader = self._writer if self.path is None else self._connection()
        except BaseException:
            self.close()
            raise

    def _connection(self) -> sqlite3.Connection:
        if self.path is not None:  # a new one is for its owner alone; the files beside it take its mode
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            self.path or ":memory:", isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        for name, (count, function) in self.schema.functions.items():
            connection.create_function(name, count, _uninterrupted(function), deterministic=True)
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    def _is_as_declared(self) -> bool:
        """Whether the file was made by this declaration, and has nothing besides: somebody who has put a view or a
        trigger into it would have it run."""
        assert self._writer is not None
        tables = {f"{text.name}_{part}" for text in self.schema.full_texts for part in _PARTS_OF_FULL_TEXT}
        last = {statement.strip() for statement in self.schema.last_statements().values()}  # there or not there yet
        statements = [
            statement
            for kind, name, statement in self._writer.execute("SELECT type, name, sql FROM sqlite_schema")
            if statement is not None and statement not in last and not (kind == "table" and name in tables)
        ]
        # SQLite keeps a statement without the blanks around it.
        expected = [statement.strip() for statement in (_CATALOG, *self.schema.statements())]
        return sorted(statements) == sorted(expected) and self._stored("digest") == self.schema.digest()

    def missing_indexes(self) -> dict[str, str]:
        """The statements for indexes that are not made yet, by name. Raises: `sqlite3.Error`."""
        writer, wanted = self._writer, self.schema.last_statements()
        if not wanted:
            return wanted
        assert writer is not None
        there = {name for (name,) in writer.execute("SELECT name FROM sqlite_schema WHERE type = 'index'")}
        return {name: statement for name, statement in wanted.items() if name not in there}

    def make_index(self, statement: str) -> None:
        """Make one of the missing indexes. Raises: `sqlite3.Error`."""
        with self._transaction() as writer:
            writer.execute(statement)

    def _stored(self, name: str) -> str | None:
        assert self._writer is not None
        found = self._writer.execute("SELECT value FROM catalog WHERE name = ?", (name,)).fetchone()
        return found and str(found[0])

    def _begin_anew(self) -> None:
        writer = self._writer
        assert writer is not None
        if writer.execute("SELECT 1 FROM sqlite_schema").fetchone():
            writer.close()
            self._writer = None
            self._unlink()
            writer = self._writer = self._connection()
        with self._transaction():
            writer.execute(_CATALOG)
            for statement in self.schema.statements():
                writer.execute(statement)
            rows = [("digest", self.schema.digest()), ("cursor", "")]
            writer.executemany("INSERT INTO catalog VALUES (?, ?)", rows)
        self.cursor = ""

    def _unlink(self) -> None:
        if self.path is not None:
            remove_file(self.path)

    def drop(self) -> None:
        """Remove the file; `open` begins it anew. Raises: `OSError`."""
        self.close()
        self._unlink()
        self.cursor = ""

    def close(self) -> None:
        """Give back the file. It may be opened again."""
        for connection in {self._reader, self._writer} - {None}:
            assert connection is not None
            connection.close()
        self._reader = self._writer = None

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        assert self._writer is not None
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        self._writer.execute("COMMIT")

    def apply(self, changes: Sequence[Change], cursor: str) -> None:
        """Make changes and move the cursor, all of it or nothing. Raises: `sqlite3.Error`."""
        writer = self._writer
        assert writer is not None
        with self._transaction():
            for change in changes:
                _run(writer, change)
            writer.execute("UPDATE catalog SET value = ? WHERE name = 'cursor'", (cursor,))
        self.cursor = cursor

    def read(self, reading: Callable[[sqlite3.Connection], T]) -> T:
        """Read, as of the last transaction, however many statements that takes. Raises: `sqlite3.Error`."""
        reader = self._reader
        if reader is None:  # it was dropped, and could not be begun anew
            raise sqlite3.OperationalError("it is not open")
        if reader is self._writer:  # nobody writes meanwhile
            return reading(reader)
        reader.rollback()  # one that was interrupted as it ended may have left its transaction open
        reader.execute("BEGIN")
        try:
            return reading(reader)
        finally:
            reader.rollback()

    def interrupt(self) -> None:
        """End the reading under way, from any thread, with an `sqlite3.OperationalError`."""
        if self._reader is not None:
            self._reader.interrupt()

    def purge(self) -> list[str]:
        """Rewrite the file, so that nothing of rows that are gone is left in it, and look: gives what is.

        Raises: `sqlite3.Error`.
        """
        writer = self._writer
        assert writer is not None
        for text in self.schema.full_texts:
            writer.execute(f"INSERT INTO {text.name}({text.name}) VALUES ('optimize')")
        writer.execute("VACUUM")
        busy = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        found = ["its write-ahead log could not be emptied: somebody reads an old state"] if busy else []
        for text in self.schema.full_texts:
            key = self.schema.keys[text.table]
            left = writer.execute(
                f"SELECT count(DISTINCT doc) FROM {text.name}_terms WHERE doc NOT IN (SELECT {key} FROM {text.table})"
            ).fetchone()[0]
            if left:
                found.append(f"its full text has words of {left} rows that are gone")
        return found

    def copy_of(self, source: str) -> None:
        """Fill a catalog in memory from another's file, which is not disturbed. What cannot be used leaves it empty."""
        assert self.path is None
        if not os.path.isfile(source) or not _can_be_a_catalog(source):
            return
        for _attempt in range(3):
            copy = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            before = _state(source)
            try:
                # Without a write-ahead log nobody has the file open, and it is read as it lies there; nothing is made
                # beside it. Did somebody open it meanwhile, the copy may be torn, and is made again.
                how = "mode=ro" if before[1] is not None else "mode=ro&immutable=1"
                with contextlib.closing(sqlite3.connect(f"{Path(source).as_uri()}?{how}", uri=True)) as original:
                    original.backup(copy)
                if before[1] is None and _state(source) != before:
                    copy.close()
                    continue
            except sqlite3.Error:
                copy.close()
                return
            self.close()
            self._writer = self._reader = copy
            try:
                self._prepare(copy)
                if self._is_as_declared():
                    self.cursor = self._stored("cursor") or ""
                    return
            except sqlite3.DatabaseError:
                pass
            self.close()
            return


def remove_file(path: str) -> None:
    """Remove the file of a catalog that nobody has open, if it is there. Raises: `OSError`."""
    for suffix in _BESIDE:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)


def _can_be_a_catalog(path: str) -> bool:
    """Whether a file, and what lies beside it, is nothing that one could wait for or read for ever: no pipe, no device,
    no terabyte that is not on the medium."""
    for suffix in _BESIDE:
        try:
            found = os.stat(path + suffix)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST_HOLE + _MOST_PACKED * 512 * found.st_blocks:
            return False
    return True


def _state(path: str) -> tuple[tuple[int, int, int] | None, int | None]:
    """What tells whether a file and its write-ahead log changed."""
    found: list[os.stat_result | None] = []
    for suffix in ("", "-wal"):
        try:
            found.append(os.stat(path + suffix))
        except OSError:
            found.append(None)
    main, wal = found
    return main and (main.st_ino, main.st_size, main.st_mtime_ns), wal and wal.st_ino


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that a file is no sound database."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _CODES_OF_DAMAGE


def _run(connection: sqlite3.Connection, change: Change) -> None:
    statement, rows, again = change
    done = 0
    while done < len(rows):
        width, left = len(rows[done]), len(rows) - done
        size = min(left, _MOST_ROWS, _VARIABLES // width)
        if size < 2 * _FEW_ROWS[0]:
            size = next(few for few in _FEW_ROWS if few <= size)
        one = f"({', '.join('?' * width)})"
        text = statement.replace("{values}", "VALUES " + ", ".join([one] * size))
        values = [value for row in rows[done : done + size] for value in row]
        changed = connection.execute(text, values).rowcount
        while again and 0 < changed < size:
            changed = connection.execute(text, values).rowcount
        done += size


def _uninterrupted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same without Ctrl-C in the midst of it: SQLite would take that for an error of its own, and swallow it."""

    @trio.lowlevel.enable_ki_protection
    def call(*arguments: Any) -> Any:
        return function(*arguments)

    return call
