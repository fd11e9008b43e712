"""The peers by name: where each is, without importing it."""

from __future__ import annotations

PEERS = {
    "Stepwell, acknowledged": "bench.peers.with_stepwell:Acknowledged",
    "sqlite3, commit per step": "bench.peers.with_sqlite:CommitPerStep",
    "sqlite3, group commit": "bench.peers.with_sqlite:GroupCommit",
    "aiosqlite": "bench.peers.with_aiosqlite:Commits",
    "LangGraph SqliteSaver": "bench.peers.with_langgraph:Saver",
    "LangGraph AsyncSqliteSaver": "bench.peers.with_langgraph:AsyncSaver",
    "eventsourcing application": "bench.peers.with_eventsourcing:Application",
    "openai-agents SQLiteSession": "bench.peers.with_agents:Sessions",
    "DBOS": "bench.peers.with_dbos:Workflows",
    "Stepwell, batches of 64": "bench.peers.with_stepwell:Batches",
    "eventsourcing, batches of 64": "bench.peers.with_eventsourcing:Recorder",
    "not durable: Stepwell": "bench.peers.with_stepwell:Accepted",
    "not durable: LangGraph memory": "bench.peers.with_langgraph:InMemory",
    "limit: encode, join, write, fdatasync": "bench.peers.with_files:PlainLoop",
    "limit: write, fdatasync": "bench.peers.with_files:Medium",
}

MODES = {
    "sqlite3, its defaults (rollback journal)": "bench.peers.with_sqlite:Defaults",
    "not durable: sqlite3, WAL and synchronous=NORMAL": "bench.peers.with_sqlite:Normal",
    "LangGraph SqliteSaver, growing state": "bench.peers.with_langgraph:GrowingState",
    "not durable: eventsourcing, its default (memory)": "bench.peers.with_eventsourcing:Defaults",
    "not durable: openai-agents, its default (memory)": "bench.peers.with_agents:Defaults",
    "Stepwell, purge": "bench.peers.with_stepwell:Purged",
}
"""Other ways to use them: what they keep, and what they forget, is looked at, their rates are not."""

WAYS = {**PEERS, **MODES}

IN_GROUPS = (
    "Stepwell, acknowledged",
    "sqlite3, group commit",
    "aiosqlite",
    "limit: encode, join, write, fdatasync",
    "limit: write, fdatasync",
)
"""Where it is of interest how far sharing a sync can go, only these are asked."""

DISTRIBUTIONS = ("aiosqlite", "langgraph-checkpoint-sqlite", "eventsourcing", "openai-agents", "dbos")
"""Whose versions the report names."""
