"""What holds for every test."""

from __future__ import annotations

import signal

import hypothesis

# A background job of a script inherits SIGINT as ignored, and Python then leaves it so: Ctrl-C in a test would never
# come.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("long", max_examples=2_000)
