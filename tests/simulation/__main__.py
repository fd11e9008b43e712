"""`python -m tests.simulation`: see `command`, whose functions worker processes must find under a name of their own."""

from __future__ import annotations

import sys

from tests.simulation.command import main

if __name__ == "__main__":
    sys.exit(main())
