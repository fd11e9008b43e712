"""Builds the sdist and the wheel, and installs them on every Python that is here, minimal and with all extras.

    make package-test
    python -m tests.packaging --python /usr/bin/python3.12

In each environment, which has nothing else in it, a program logs, is reopened and read; the command line is asked for
its version and for an episode; without extras each feature of an extra says what to install. Printed: sizes, what is in
the wheel, and how long `import stepwell` takes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from tests.packaging.pythons import find_pythons

ROOT = Path(__file__).resolve().parents[2]
CHECK = Path(__file__).with_name("installed.py")
EXTRAS = "zstd,encryption,parquet,otel,testing"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", action="append", help="only this interpreter; repeatable")
    arguments = parser.parse_args()
    pythons = arguments.python or find_pythons()
    with tempfile.TemporaryDirectory(prefix="stepwell-packaging-") as place:
        wheel, sdist = build(Path(place) / "dist")
        inspect(wheel, sdist)
        for python in pythons:
            for archive, extras in ((wheel, ""), (wheel, EXTRAS), (sdist, "")):
                install_and_check(python, archive, extras, Path(place))
    print(
        f"{len(pythons)} versions of Python, each with the wheel, the wheel with all extras, and the sdist: all sound"
    )
    return 0


def build(target: Path) -> tuple[Path, Path]:
    """The wheel, made from the sdist, and the sdist: as an index would get them."""
    environment = target.parent / "build-env"
    run(sys.executable, "-m", "venv", str(environment))
    run(str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "build")
    run(str(environment / "bin" / "python"), "-m", "build", "--outdir", str(target), str(ROOT))
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, sdist


def inspect(wheel: Path, sdist: Path) -> None:
    """What must be in them, and what must not."""
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    roots = {name.split("/")[0] for name in names}
    assert all(root in ("stepwell", "stepstore") or root.endswith(".dist-info") for root in roots), roots
    assert "stepwell/py.typed" in names
    assert "stepstore/py.typed" in names
    assert not [name for name in names if name.endswith((".pyc", ".pyo"))]
    with tarfile.open(sdist) as opened_tar:
        inside = {name.partition("/")[2] for name in opened_tar.getnames()}
    assert {"LICENSE", "README.md", "SECURITY.md", "tests/packaging/__main__.py", "docs/format.md"} <= inside
    modules = sum(name.endswith(".py") for name in names)
    print(f"{wheel.name}: {wheel.stat().st_size / 1024:,.0f} KiB, {modules} modules, {len(names)} files")
    print(f"{sdist.name}: {sdist.stat().st_size / 1024:,.0f} KiB, {len(inside)} files")


def install_and_check(python: str, archive: Path, extras: str, place: Path) -> None:
    """Install into a new environment, and try it there. Raises: `subprocess.CalledProcessError`."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        environment = Path(folder) / "env"
        run(python, "-m", "venv", str(environment))
        inside = str(environment / "bin" / "python")
        run(inside, "-m", "pip", "install", "--quiet", f"{archive}[{extras}]" if extras else str(archive))
        run(inside, "-m", "pip", "check")
        said = run(inside, "-I", "-W", "error", str(CHECK), "all" if extras else "none", cwd=folder)
        version = run(inside, "-c", "import sys; print('.'.join(map(str, sys.version_info[:3])))").strip()
        kind = "all extras" if extras else ("wheel" if archive.suffix == ".whl" else "sdist")
        print(f"Python {version}, {kind}: {said.strip()}", flush=True)


def run(*command: str, cwd: str | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
