"""The commands and their options. Each command's work is in the module named after it."""

from __future__ import annotations

from pathlib import Path

import click

from stepwell._version import __version__
from stepwell.cli import catalog_commands, changing_commands, learning_commands, search_command, watching_commands
from stepwell.cli.options import (
    PATH,
    CommandGroup,
    directory_option,
    episode_argument,
    example,
    json_option,
    key_option,
)
from stepwell.cli.output import reporting_errors


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="stepwell")
def cli() -> None:
    """Stepwell: episodic memory for AI agents that survives crashes.

    A memory is a directory: name it with --dir, or once with STEPWELL_DIR. Reading commands work while other programs
    write, and change nothing. Start with `stepwell demo`; if something is wrong, with `stepwell verify`.
    """


@cli.command(epilog=example("stepwell demo", "stepwell demo --agents 50 --seed 7 --dir crashed"))
@click.option("--agents", type=click.IntRange(1, 5_000), default=200, show_default=True, help="How many agents.")
@click.option("--seed", type=int, default=1, show_default=True, help="Chooses the modules and the moment of the kill.")
@click.option(
    "--dir",
    "directory",
    type=PATH,
    help="Write here instead of into a temporary directory; must be empty or new. Kept.",
)
@click.option("--keep", is_flag=True, help="Keep the temporary directory, to look around in it afterwards.")
@json_option
@reporting_errors
def demo(agents: int, seed: int, directory: Path | None, keep: bool, as_json: bool) -> None:
    """Watch a fleet of agents lose nothing to a kill -9.

    Agents audit modules of Python's standard library with real tools in a process of their own and log every tool
    call. The process is killed in the middle; the log is reopened, compared with everything that was acknowledged,
    and the open audits are resumed to their end. Exit code 1 if anything acknowledged was lost.
    """
    from stepwell.cli.demo.command import run_demo

    if not run_demo(agents=agents, seed=seed, directory=directory, keep=keep, as_json=as_json):
        raise SystemExit(1)


format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["stepwell", "klieo"]),
    default="stepwell",
    show_default=True,
    help="What the lines are.",
)


@cli.command("import", epilog=example("stepwell import runs.jsonl.gz more.jsonl --dir agent-memory"))
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@click.option("--strict", is_flag=True, help="Stop at the first bad line instead of skipping it.")
@click.option("--redact", is_flag=True, help="Replace what looks like a secret; importing never does otherwise.")
@format_option
@directory_option
@key_option
@json_option
@reporting_errors
def import_(files: tuple[Path, ...], strict: bool, redact: bool, form: str, directory: Path, as_json: bool) -> None:
    """Import episodes from JSON lines, plain or gzipped.

    One event per line: "start", "step" and "complete" (the form that `stepwell export` writes), or OpenTelemetry spans
    of generative AI in OTLP's JSON encoding. Importing again adds nothing twice, and an import that was cut off goes on
    where it stopped. With --format klieo, the events of runs and the messages of threads in klieo's shapes; there a bad
    line always stops it.
    """
    if form == "klieo":
        if redact:
            raise click.UsageError("--redact is for the form of stepwell only")
        from stepwell.cli.klieo_lines import run_import_klieo

        return run_import_klieo(files, directory, as_json=as_json)
    from stepwell.cli.importing.command import run_import

    return run_import(list(files), directory, strict=strict, redact=redact, as_json=as_json)


@cli.command(
    epilog=example(
        "stepwell export episodes.jsonl.gz --dir agent-memory",
        "stepwell export - | head",
        "stepwell export steps.parquet",
        "stepwell export spans.jsonl --format otlp",
        "stepwell export --archive /backups/monday",
    ),
    short_help="Write them out: JSON lines, Parquet, OpenTelemetry; or files.",
)
@click.argument("out", type=click.Path(allow_dash=True))
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "parquet", "otlp", "klieo"]),
    help="What to write.  [default: parquet for a name that ends so, else jsonl]",
)
@click.option("--archive", is_flag=True, help="Copy the finished files of the log, while others write; see below.")
@click.option("--partial", is_flag=True, help="Of damaged episodes what is sound; exit code 1 if there are any.")
@directory_option
@key_option
@json_option
@reporting_errors
def export(out: str, form: str | None, archive: bool, partial: bool, directory: Path, as_json: bool) -> None:
    """Write every episode to a file.

    As JSON lines, as a Parquet table of steps, or as OpenTelemetry spans; or every run and thread as events and
    messages in klieo's shapes. A name ending in .gz is compressed, - is standard output. The file appears whole or
    not at all, and only its owner may read a new one. Parquet needs the extra stepwell[parquet].

    With --archive OUT is a new directory, which gets a checked copy of the files of the log that are finished, as they
    are. It needs neither the memory to be closed nor a key. `stepwell verify --dir OUT` checks such a copy again,
    `stepwell restore OUT DST` makes a memory of it. What is in the file being written to now is not in it.
    """
    from stepwell.cli.archiving import run_archive
    from stepwell.cli.exporting import run_export

    if archive and (form is not None or partial):
        raise click.UsageError("--archive copies the log as it is; --format and --partial do not go with it.")
    if partial and form == "klieo":
        raise click.UsageError("--partial does not go with --format klieo.")
    if archive:
        run_archive(directory, Path(out), as_json=as_json)
    elif form == "klieo":
        from stepwell.cli.klieo_lines import run_export_klieo

        run_export_klieo(out, directory, as_json=as_json)
    else:
        run_export(out, directory, form=form, partial=partial, as_json=as_json)


@cli.command(epilog=example("stepwell show audit-017-heapq --dir agent-memory"))
@episode_argument
@click.option("--all", "everything", is_flag=True, help="Show every step of a long episode.")
@directory_option
@key_option
@json_option
@reporting_errors
def show(episode_id: str, everything: bool, directory: Path, as_json: bool) -> None:
    """Show one episode as a timeline. ID may be the beginning of an id."""
    from stepwell.cli.timeline import run_show

    run_show(episode_id, directory, everything=everything, as_json=as_json)


@cli.command(epilog=example("stepwell verify --dir agent-memory"), short_help="Check every byte; changes nothing.")
@directory_option
@json_option
@reporting_errors
def verify(directory: Path, as_json: bool) -> None:
    """Check every byte of the log; exit code 1 if something is damaged. Changes nothing."""
    from stepwell.cli.verifying import run_verify

    if not run_verify(directory, as_json=as_json):
        raise SystemExit(1)


@cli.command(epilog=example("stepwell stats --dir agent-memory", "stepwell stats --json"))
@click.option(
    "--over-time/--no-over-time",
    default=None,
    help="Draw what happened over time, which reads every event.  [default: unless --json]",
)
@directory_option
@key_option
@json_option
@reporting_errors
def stats(over_time: bool | None, directory: Path, as_json: bool) -> None:
    """Show how much a memory holds, and what happened over time.

    Also what compacting would give back. Works while another process writes. What that process counts, `memory.stats()`
    tells in it.
    """
    from stepwell.cli.statistics import run_stats

    run_stats(directory, over_time=over_time, as_json=as_json)


@cli.command(
    epilog=example("stepwell salvage agent-memory agent-memory-salvaged"),
    short_help="Write a new log from what is sound in a damaged one.",
)
@click.argument("source", metavar="SRC", type=PATH)
@click.argument("target", metavar="DST", type=PATH)
@click.option(
    "--key-file",
    type=PATH,
    help="The master key (32 bytes) that the keys of encrypted episodes are wrapped with.",
)
@click.option("--yes", is_flag=True, help="Do not ask before writing.")
@json_option
@reporting_errors
def salvage(source: Path, target: Path, key_file: Path | None, yes: bool, as_json: bool) -> None:
    """Write a new log to DST from what is sound in SRC; exit code 1 if anything is lost. SRC is never changed.

    Of each episode the new log holds everything up to its first missing record. What was found behind that goes to
    DST/salvaged, one JSON-lines file per episode, with a list of all that is missing in REPORT.txt and REPORT.json. DST
    must be absent or empty. Encrypted episodes are encrypted again, with new keys, if their master key is given.
    """
    from stepwell.cli.salvaging import run_salvage

    if not run_salvage(source, target, key_file=key_file, yes=yes, as_json=as_json):
        raise SystemExit(1)


@cli.command(
    epilog=example("stepwell backup /backups/monday --dir agent-memory"),
    short_help="A checked copy of a memory that nobody has open.",
)
@click.argument("target", metavar="ARCHIVE", type=PATH)
@directory_option
@key_option
@json_option
@reporting_errors
def backup(target: Path, directory: Path, as_json: bool) -> None:
    """Copy a memory that nobody has open, and check every byte.

    ARCHIVE is a new directory. A program that has the memory open backs it up with `await memory.backup(target)`, and
    goes on meanwhile.
    """
    from stepwell.cli.archiving import run_backup

    run_backup(directory, target, as_json=as_json)


@cli.command(
    epilog=example("stepwell restore /backups/monday agent-memory"), short_help="Make a memory of a backup or archive."
)
@click.argument("source", metavar="ARCHIVE", type=PATH)
@click.argument("target", metavar="DST", type=PATH)
@json_option
@reporting_errors
def restore(source: Path, target: Path, as_json: bool) -> None:
    """Make a memory at DST of an archive. DST must be absent or empty; the archive is checked and never changed.

    The restored memory is a branch of its own: cursors of followers of the original are refused by it.
    """
    from stepwell.cli.archiving import run_restore

    run_restore(source, target, as_json=as_json)


for _commands in (catalog_commands, learning_commands, search_command, watching_commands, changing_commands):
    for _command in _commands.COMMANDS:
        cli.add_command(_command)
