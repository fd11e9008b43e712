"""Count the syncs of the demo with strace: at least one for each commit group in the log it leaves.

    python -m tests.crash.syncs

SIGKILL cannot see a missing fsync, so `kill9` would pass without one; this, and the tests on the in-memory file layer,
would not. Exit status 0: fine, 1: too few syncs, 0 with a loud line where strace is not to be had.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from stepstore.log.verify import verify_log


def main() -> int:
    """Run the demo under strace and compare."""
    if shutil.which("strace") is None:
        print("SKIPPED: strace is not installed, so no sync was counted")
        return 0
    with tempfile.TemporaryDirectory(prefix="stepwell-syncs-") as directory:
        counts, log = Path(directory, "counts"), Path(directory, "log")
        traced = ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", str(counts)]
        demo = [sys.executable, "-m", "stepwell", "demo", "--dir", str(log), "--keep", "--json"]
        subprocess.run(traced + demo, check=True, stdout=subprocess.DEVNULL)
        report = verify_log(str(log))
        found = re.findall(
            r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s.*\b(fsync|fdatasync)$", counts.read_text(), re.MULTILINE
        )
        syncs = sum(int(count) for count, call in found if call == "fdatasync")
    enough = syncs >= report.frames > 0
    groups = f"{report.frames} commit groups with {report.records} records, {syncs} fdatasyncs"
    print(f"{groups}: {'fine' if enough else 'TOO FEW'}")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
