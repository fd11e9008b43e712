"""What a catalog holds, declared: tables, their indexes, and columns for full-text search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table. `columns` gives each its SQL type and constraints, `key` the columns of the primary key where that is
    not one INTEGER column; `indexes` what stands behind ON in CREATE INDEX: ("(agent)", "(archived) WHERE archived").
    `belongs_to`: another table and the column here that holds its key: rows go when that row goes.
    `indexed_last`: only readers use its `indexes`, and no statement of the fold does. They are made when the rows of a
    catalog that is folded from the start are there: kept up to date row by row they would cost as much as the rows.
    """

    name: str
    columns: dict[str, str]
    key: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    belongs_to: tuple[str, str] | None = None
    indexed_last: bool = False

    def statements(self, keys: dict[str, str]) -> Iterator[str]:
        """The statements that make it. `keys`: the integer key of each table."""
        parts = [f"{name} {kind}" for name, kind in self.columns.items()]
        tail = ""
        if self.key:
            parts.append(f"PRIMARY KEY ({', '.join(self.key)})")
            tail = " WITHOUT ROWID"
        yield f"CREATE TABLE {self.name} ({', '.join(parts)}){tail}"
        if not self.indexed_last:
            yield from self.index_statements().values()
        if self.belongs_to is not None:
            owner, column = self.belongs_to
            yield (
                f"CREATE TRIGGER {self.name}_goes AFTER DELETE ON {owner} "
                f"BEGIN DELETE FROM {self.name} WHERE {column} = old.{keys[owner]}; END"
            )

    def index_statements(self) -> dict[str, str]:
        """The statements that make its indexes, by the name of the index."""
        return {
            f"{self.name}_{number}": f"CREATE INDEX {self.name}_{number} ON {self.name} {index}"
            for number, index in enumerate(self.indexes)
        }

    @property
    def integer_key(self) -> str:
        """The INTEGER PRIMARY KEY column, "rowid" where there is none."""
        return next((name for name, kind in self.columns.items() if kind == "INTEGER PRIMARY KEY"), "rowid")


@dataclass(frozen=True, kw_only=True)
class FullText:
    """An FTS5 index over text columns of a table. It follows the table by triggers and holds no copy of the text. A row
    all of whose text is NULL is not in it. `{name}_counts` tells in how many rows (`doc`) each `term` occurs.

    `where`: a condition over `{row}`; a row for which it is not true is not in it either. `where_columns`: those that
    it reads. `options`: further ones of FTS5, such as "detail=none" where nobody asks for phrases.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    tokenizer: str = "unicode61 remove_diacritics 2"
    where: str = ""
    where_columns: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def holds(self, row: str) -> str:
        """The condition for `row` ("new", or "old" in a trigger) to be in it."""
        any_text = " OR ".join(f"{row}.{column} IS NOT NULL" for column in self.columns)
        return f"({self.where.format(row=row)}) AND ({any_text})" if self.where else f"({any_text})"

    @property
    def watched(self) -> tuple[str, ...]:
        """The columns that decide what it holds of a row."""
        return (*self.columns, *self.where_columns)

    def changed(self) -> str:
        """The condition, in a trigger, for a row to be in it with something else than before, or not any more."""
        return " OR ".join(f"old.{column} IS NOT new.{column}" for column in self.watched)

    def statements(self, keys: dict[str, str]) -> Iterator[str]:
        """The statements that make it."""
        key, columns = keys[self.table], ", ".join(self.columns)
        options = "".join(f", {option}" for option in self.options)
        yield (
            f"CREATE VIRTUAL TABLE {self.name} USING fts5({columns}, content={self.table}, content_rowid={key}, "
            f"tokenize='{self.tokenizer}'{options})"
        )
        yield f"CREATE VIRTUAL TABLE {self.name}_terms USING fts5vocab({self.name}, instance)"
        yield f"CREATE VIRTUAL TABLE {self.name}_counts USING fts5vocab({self.name}, row)"

        def values(row: str) -> str:
            return ", ".join(f"{row}.{column}" for column in self.columns)

        put = f"INSERT INTO {self.name}(rowid, {columns}) VALUES (new.{key}, {values('new')});"
        take = f"INSERT INTO {self.name}({self.name}, rowid, {columns}) VALUES ('delete', old.{key}, {values('old')});"
        yield f"CREATE TRIGGER {self.name}_put AFTER INSERT ON {self.table} WHEN {self.holds('new')} BEGIN {put} END"
        yield f"CREATE TRIGGER {self.name}_take AFTER DELETE ON {self.table} WHEN {self.holds('old')} BEGIN {take} END"
        # In one trigger: which of two comes first is not defined, and words of both texts would go with the old one.
        take = take.replace(" VALUES (", " SELECT ").replace(");", f" WHERE {self.holds('old')};")
        put = put.replace(" VALUES (", " SELECT ").replace(");", f" WHERE {self.holds('new')};")
        yield (
            f"CREATE TRIGGER {self.name}_change AFTER UPDATE OF {', '.join(self.watched)} ON {self.table} "
            f"WHEN {self.changed()} BEGIN {take} {put} END"
        )


@dataclass(frozen=True, kw_only=True)
class CatalogSchema:
    """All of a catalog. `version` changes when the same tables are filled in another way: by another fold, or by other
    `functions`. These are pure, and may be called in the fold's statements and in queries, by name; each comes with how
    many arguments it takes. `triggers`: further statements, behind those that make the tables and full texts.
    """

    version: int
    tables: tuple[Table, ...]
    full_texts: tuple[FullText, ...] = ()
    triggers: tuple[str, ...] = ()
    functions: dict[str, tuple[int, Callable[..., Any]]] = field(default_factory=dict, repr=False)
    keys: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", {table.name: table.integer_key for table in self.tables})

    def statements(self) -> list[str]:
        """The statements that make the catalog, but for the indexes that are made last."""
        return [
            *(statement for table in self.tables for statement in table.statements(self.keys)),
            *(statement for text in self.full_texts for statement in text.statements(self.keys)),
            *self.triggers,
        ]

    def last_statements(self) -> dict[str, str]:
        """Those that make the indexes of tables that are indexed last, by the name of the index."""
        return {
            name: statement
            for table in self.tables
            if table.indexed_last
            for name, statement in table.index_statements().items()
        }

    def digest(self) -> str:
        """What tells this declaration from any other."""
        statements = [*self.statements(), *self.last_statements().values()]
        return blake2b("\n".join([str(self.version), *statements]).encode(), digest_size=16).hexdigest()
