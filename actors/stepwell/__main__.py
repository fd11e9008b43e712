"""`python -m stepwell`: the same program as the `stepwell` command."""

from __future__ import annotations

from stepwell.cli import main

if __name__ == "__main__":
    main()
