"""Episodes as OpenTelemetry spans, by the semantic conventions for generative AI, in OTLP's JSON encoding.

An episode is a trace: one span `invoke_agent` for the whole of it, and below that one span `execute_tool` for each
step. A file holds one `TracesData` object per line, one line per episode, as the OTLP file exporter writes it.

The conventions (version 1.41, status "development") have no word for some of what a step says. Those parts stand in
attributes `stepwell.start`, `stepwell.step` and `stepwell.complete`: events of the neutral form, as JSON, without what
the `gen_ai.…` attributes say already. So what we wrote comes back without loss.

Spans that something else wrote are read as well. Each outermost `invoke_agent` (or `invoke_workflow`) of a trace is an
episode, an inner one is an episode whose parent is the outer one, and each span of a tool call, a model call or a
retrieval is a step of the agent that it is nearest to. A trace without any agent is one episode if it has such spans.

General layout: `attributes` is the encoding of values, `spans` what is taken from a file, `writing` and `reading`
convert episodes to spans and spans to events of the neutral form.
"""

from __future__ import annotations

from stepwell.cli.span_form.reading import read_spans as read_spans
from stepwell.cli.span_form.spans import TooManySpans as TooManySpans
from stepwell.cli.span_form.spans import holds_spans as holds_spans
from stepwell.cli.span_form.spans import spans_of_file as spans_of_file
from stepwell.cli.span_form.writing import traces_data as traces_data
