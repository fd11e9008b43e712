"""The half of `fuzz` that is guided by coverage: libFuzzer, through atheris, throws the dice.

    python -m tests.crash.fuzz_coverage RUNS SEED OUT

A process of its own, since libFuzzer never gives the process back. What was seen is written to OUT again and again.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

atheris: Any = importlib.import_module("atheris")  # comes without types, and only for some Pythons

with atheris.instrument_imports(include=["stepstore"]):
    from tests.crash.dice import BytesDice
    from tests.crash.fuzz import Hunt
    from tests.crash.hostile import bases, compose
    from tests.crash.sweep import Tally

SEEDS, SEED_BYTES = 100, 200
WRITTEN_EVERY = 500


def main() -> None:
    """Feed RUNS inputs and end the process."""
    runs, seed, out = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    hunt = Hunt(Tally())
    bases()

    def feed(data: bytes) -> None:
        hunt.try_one(compose(BytesDice(data)))
        if hunt.tally.cases % WRITTEN_EVERY == 0 or hunt.tally.cases >= runs:
            out.write_text(json.dumps(hunt.tally.to_json()))

    corpus = tempfile.mkdtemp(prefix="stepwell-corpus-", dir=out.parent)
    dice = random.Random(seed)
    for number in range(SEEDS):
        Path(corpus, str(number)).write_bytes(dice.randbytes(SEED_BYTES))
    limits = [f"-runs={runs}", f"-seed={seed}", "-max_len=1000", f"-artifact_prefix={out.parent}/"]
    atheris.Setup([sys.argv[0], *limits, corpus], feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
