"""Durable storage for Stepwell: bytes, streams and sequence numbers. It knows nothing of agents.

General layout, bottom to top (an arrow never runs up):

- `errors`: the root of the error family and every error storage can raise.
- `notices`: what a journal tells of itself as it happens. `restarting`: what becomes of a task that fails.
- `log`: the segment log. Files, frames, recovery; pure functions over bytes and an injected file layer, and one writer
  task that commits groups.
- `journal`: the contract the actor runtime stands on (append to a stream, read it, follow the log) and its
  implementations: on the segment log, and in memory.
"""
