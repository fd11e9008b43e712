"""The Trio part: one task per episode, a supervisor that owns their cells, and the journal under them.

General layout: `config` (settings), `receipt` (what an acknowledgement is), `cell` (what outlives an incarnation of an
episode's task: its mailbox, what it has in hand, its next seq), with `keys` (idempotency) and `ending_request`;
`transaction` (batches of several streams in one commit), with `episode_part` (what is staged for an episode);
`episode_task` (the loop rebuild → incarnation → backoff) under `oversight`; `lifecycle_events` (what is told to whoever
looks), `flusher` (the timer of batches), `passivation` (who goes to sleep, and how nothing is lost by it), `supervisor`
(routes, wakes, ends), `resuming` (wakes what was open at start), `reading` (events and folds from the journal),
`runtime` (the task tree and its orderly end).
"""
