"""Take pictures of what the commands print in a terminal, and write the page that shows them.

    python tools/terminal_pictures.py     # docs/terminal/*.svg and docs/cli.md

The commands run in a pseudo-terminal of 110 columns on a memory that is made anew, so times differ from run to run.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path
from typing import NamedTuple

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "terminal"
PAGE = ROOT / "docs" / "cli.md"
COLUMNS = 110
ROWS_SHOWN = 46
FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.S)
"""Without fonts that would be fetched from somewhere."""


class Picture(NamedTuple):
    """A command, as it is typed, and what the page says of it. `typed` is what somebody answers it."""

    name: str
    command: str
    about: str
    code: int = 0
    typed: str = ""


SHOWN = [
    Picture("help", "stepwell --help", "Every command has `--help` with examples, and `--json` for programs."),
    Picture("demo", "stepwell demo --agents 60 --dir agent-memory", "Agents are killed with SIGKILL and lose nothing."),
    Picture(
        "list",
        "stepwell list --limit 8",
        "The newest episodes. Conditions narrow it down, and all that are given must hold: `--status`, `--outcome`,\n"
        "`--agent`, `--task-type`, `--domain`, `--language`, `--tag` (all of), `--any-tag`, `--since` and `--before`\n"
        "(UTC), `--ended-since`, `--ended-before`, `--min-reward`, `--max-reward`, `--archived`, `--not-archived`,\n"
        "`--text`. With `--json`, `next_cursor` leads to the next page.",
    ),
    Picture("show", "stepwell show {episode}", "One episode as a timeline: when, whether it worked, how long, what."),
    Picture("stats", "stepwell stats", "How much there is, and what happened over time."),
    Picture("tags", "stepwell tags", "Which tags there are, and how many episodes have each."),
    Picture("tail", "stepwell tail -n 8", "The newest events; `-f` goes on with those to come, until Ctrl-C."),
    Picture(
        "search",
        'stepwell search "Audit the names of json" --limit 3',
        "Finished episodes that help with a task, and why.",
    ),
    Picture(
        "recommend",
        'stepwell recommend "Audit the names of json" --domain code-audit --tag names',
        "Advice on a task, counted over the episodes of the memory.",
    ),
    Picture("replay", "stepwell replay {episode} --speed 0", "An episode again as it went, `--speed` times as fast."),
    Picture("export", "stepwell export episodes.jsonl.gz", "Everything as JSON lines; or Parquet, or OpenTelemetry."),
    Picture("import", "stepwell import episodes.jsonl.gz --dir copy", "And back; importing again adds nothing twice."),
    Picture("archive", "stepwell export --archive tuesday", "A checked copy of the finished files, beside a writer."),
    Picture("backup", "stepwell backup monday", "A checked copy of a memory that nobody has open."),
    Picture("restore", "stepwell restore monday restored", "A memory made of a copy."),
    Picture("rebuild", "stepwell rebuild", "What is kept beside the log, derived from it anew."),
    Picture("verify", "stepwell verify", "Every byte of the log is read and compared with its checksums."),
    Picture("retain", "stepwell retain --max-episodes 50 --dry-run", "Who would be deleted by a policy; nobody is."),
    Picture("delete", "stepwell delete {episode}", "It shows what would go, and asks.", typed="y\n"),
    Picture("purge", "stepwell compact --purge --yes", "What was deleted is removed from the files; and the proof."),
    Picture("damage", "stepwell verify --dir damaged", "One flipped bit: what it hurts, and what it does not.", code=1),
    Picture("salvage", "stepwell salvage damaged saved --yes", "A new log from what is sound, and a report.", code=1),
    Picture("wrong", "stepwell shwo", "A slip names the nearest command; wrong usage is exit code 2.", code=2),
    Picture("nobody", "stepwell show nobody", "What was asked for failed: one line, exit code 1.", code=1),
    Picture("completion", "stepwell completion fish", "For bash, zsh and fish: commands, options and episode ids."),
]  # fmt: skip


def in_a_terminal(command: str, directory: Path, typed: str) -> tuple[int, str]:
    """The exit code and the output of a command, as a terminal gets it."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "STEPWELL_DIR": "agent-memory"}
    environment.pop("NO_COLOR", None)
    arguments = [sys.executable, "-m", *shlex.split(command)]
    # Progress bars are drawn on stderr, and gone when the command ends; only a question has to be seen.
    errors = side if typed else subprocess.PIPE
    with subprocess.Popen(arguments, cwd=directory, env=environment, stdin=side, stdout=side, stderr=errors) as process:
        os.close(side)
        said = b""
        try:
            while block := os.read(main, 65_536):
                said += block
                if typed and b"]: " in said:  # the question stands there
                    os.write(main, typed.encode())
                    typed = ""
        except OSError:  # the other end is closed
            pass
        complaints = b"" if process.stderr is None else process.stderr.read()
    os.close(main)
    return process.returncode, (said + complaints).decode().replace("\r\n", "\n")


def take(picture: Picture, directory: Path, episode: str) -> str:
    """Run the command, keep its picture, give its output. Raises: `SystemExit` if it ends otherwise than it should."""
    command = picture.command.format(episode=episode)
    code, said = in_a_terminal(command, directory, picture.typed)
    if code != picture.code:
        raise SystemExit(f"{command}: exit code {code}\n{said}")
    lines = said.replace(f"{directory}/", "").rstrip("\n").split("\n")
    if len(lines) > ROWS_SHOWN:
        lines = [*lines[: ROWS_SHOWN - 1], "…"]
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text.from_ansi(f"\x1b[1m$ {command}\x1b[0m\n" + "\n".join(lines)))
    svg = console.export_svg(title="", code_format=FORMAT, unique_id=f"stepwell-{picture.name}")
    svg = re.sub(r"[ \t]+$", "", svg, flags=re.M)
    (PICTURES / f"{picture.name}.svg").write_text(svg, encoding="utf-8")
    return said


def damaged_copy(directory: Path) -> None:
    """A copy of the memory with one bit flipped in the middle of a file."""
    subprocess.run(["cp", "-r", "agent-memory", "damaged"], cwd=directory, check=True)
    segment = max((directory / "damaged").glob("*.seg"), key=lambda path: path.stat().st_size)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 4
    segment.write_bytes(data)


INTRODUCTION = """\
# Command line

`stepwell COMMAND [OPTIONS]`: options come after the command. `--dir`, or `STEPWELL_DIR`, names the memory, and
`--key-file`, or `STEPWELL_KEY_FILE`, the master key of encrypted episodes. Results go to stdout, progress and errors to
stderr; exit code 0 is fine, 1 means that what was asked for failed, 2 wrong usage. Reading commands work while another
process writes, and change nothing. Colours respect `NO_COLOR` and are not sent into a pipe. `delete` and
`compact --purge` ask first, and do nothing where nobody can be asked, unless `--yes` is said.

The pictures are taken by `tools/terminal_pictures.py`."""


def page() -> str:
    """The page that shows them all."""
    lines = [INTRODUCTION]
    for picture in SHOWN:
        command = picture.command.format(episode="ID")
        lines += ["", f"## `{command}`", "", picture.about, "", f"![{command}](terminal/{picture.name}.svg)"]
    return "\n".join(lines) + "\n"


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="stepwell-pictures-") as place:
        directory, episode = Path(place), ""
        for picture in SHOWN:
            if picture.name == "damage":
                damaged_copy(directory)
            said = take(picture, directory, episode)
            if picture.name == "list":
                plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
                rows = [line.split() for line in plain.splitlines()[1:] if line.startswith("audit-")]
                episode = max(rows, key=lambda row: (row[1] == "partial", -abs(int(row[2]) - 14)))[0]
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
