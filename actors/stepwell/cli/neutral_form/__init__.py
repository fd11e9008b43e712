"""The neutral form: one JSON object per line, four kinds of event, converted to the model and back without loss.

    start     episode, source, task_id, task, domain, tags, agent, trial
    step      episode, step_number, tool, action, parameters, result {"success": …} or {"error": text}, latency_ms,
              reward, and perhaps thought
    complete  episode, outcome, reward, steps, outcome_label, meta
    organise  episode, change ("tagged", "updated", "archived", "restored", "related", "checkpointed"), and its fields

What the model has a field for goes there. Every other key, known or not, becomes metadata of the start, the step or the
ending under its own name, and metadata comes back as keys of the event. Where writing an event from the model would
still not give the very same object (a key that was absent, a `5.0` where this module writes `5`), the difference is
kept in metadata under `neutral_form` and laid over the event on the way back. So reading and writing are inverse by
construction: `read` computes what `write` will say and stores exactly what that would get wrong.

An episode that was not imported is written in the same form: `source` is then "stepwell", and what the model knows
beyond the form (`language`, `tokens_used`, `outcome_detail`, …) appears as further keys where it is not the default.

General layout: `events` says what an event is, `lines` turns it into text and back, `files` reads files of such lines,
`reading` and `writing` convert it to the model and from it, `fields` checks what comes in, `difference` keeps what the
model would say otherwise.
"""

from __future__ import annotations

from stepwell.cli.neutral_form.difference import same as same
from stepwell.cli.neutral_form.events import BadLine as BadLine
from stepwell.cli.neutral_form.events import JsonObject as JsonObject
from stepwell.cli.neutral_form.events import NeutralChange as NeutralChange
from stepwell.cli.neutral_form.events import NeutralComplete as NeutralComplete
from stepwell.cli.neutral_form.events import NeutralEvent as NeutralEvent
from stepwell.cli.neutral_form.events import NeutralStart as NeutralStart
from stepwell.cli.neutral_form.events import NeutralStep as NeutralStep
from stepwell.cli.neutral_form.lines import parse_line as parse_line
from stepwell.cli.neutral_form.lines import to_line as to_line
from stepwell.cli.neutral_form.reading import read as read
from stepwell.cli.neutral_form.reading import with_step_count as with_step_count
from stepwell.cli.neutral_form.writing import History as History
from stepwell.cli.neutral_form.writing import start_event as start_event
from stepwell.cli.neutral_form.writing import step_event as step_event
from stepwell.cli.neutral_form.writing import write_episode as write_episode
