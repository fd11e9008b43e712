"""The peers by name: where each is, without importing it."""

from __future__ import annotations

PEERS = {
    "Stepwell, log_step + wait_durable": "bench.peers.with_stepwell:Acknowledged",
    "Stepwell, log_steps of 64": "bench.peers.with_stepwell:Batches",
    "Stepwell, log_step, not awaited": "bench.peers.with_stepwell:Accepted",
    "sqlite3, commit per step": "bench.peers.with_sqlite:CommitPerStep",
    "sqlite3, group commit by hand": "bench.peers.with_sqlite:GroupCommit",
}

DISTRIBUTIONS = ("stepwell",)
"""Whose versions the report names."""
