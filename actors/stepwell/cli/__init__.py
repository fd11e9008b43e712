"""The `stepwell` command.

General layout: `app`, `watching_commands` and `changing_commands` declare the commands and their options; every command
has a module of its own that does the work (`importing`, `exporting`, `listing`, `timeline`, `watching`, `replaying`,
`erasing`, `statistics`, `verifying`, `salvaging`, `archiving`, `demo`). `neutral_form` is the JSON-lines form that
`import` and `export` speak, `payloads` says what the bytes in a log mean, `step_lines` and `event_lines` how a step and
an event look. `options` and `output` are what all commands share: options, consoles, `--json`, and errors as one line.

Nothing here is imported by `import stepwell`, and click and rich only once a command runs.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 fine, 1 the thing asked for failed, 2 wrong usage."""
    try:
        from stepwell.cli.app import cli
    except KeyboardInterrupt:  # from here on click turns it into one line
        sys.exit(1)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows what it can
    logging.basicConfig(format="stepwell: %(message)s")
    cli.main(args=None if args is None else list(args), prog_name="stepwell")
