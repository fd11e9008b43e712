"""The commands that look at what happens, and happened: their options."""

from __future__ import annotations

import difflib
from pathlib import Path

import click

from stepwell.cli.options import (
    complete_episode_id,
    directory_option,
    episode_argument,
    example,
    json_option,
    key_option,
)
from stepwell.cli.output import reporting_errors


def _known_kinds(_context: click.Context, _parameter: click.Parameter, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Kinds of events that there are: of one that is misspelled nothing would ever be shown."""
    from stepwell.cli.watching import KINDS

    for kind in kinds:
        if kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise click.BadParameter(f"there are no events of the kind {kind!r}, only {', '.join(KINDS)}.{meant}")
    return kinds


@click.command(
    epilog=example(
        "stepwell tail --dir agent-memory",
        "stepwell tail -f --kind step --kind ended",
        "stepwell tail -f -n 0 --json | jq .data",
    ),
    short_help="The newest events; -f follows what other programs write.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option("-n", "--last", type=click.IntRange(0), default=20, show_default=True, help="How many of the newest.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    callback=_known_kinds,
    help="Only events of this kind (started, step, ended, …); repeatable.",
)
@click.option("--episode", metavar="ID", shell_complete=complete_episode_id, help="Only those of this episode.")
@directory_option
@key_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line, for programs.")
@reporting_errors
def tail(follow: bool, last: int, kinds: tuple[str, ...], episode: str | None, directory: Path, as_json: bool) -> None:
    """Show the newest events of a memory, and follow it while it is written to."""
    from stepwell.cli.watching import run_tail

    run_tail(directory, last=last, follow=follow, kinds=kinds, episode=episode, as_json=as_json)


@click.command(
    epilog=example("stepwell replay audit-017-heapq --speed 10", "stepwell replay 0198 --speed 0 --json"),
    short_help="An episode again as it went, with its pauses.",
)
@episode_argument
@click.option(
    "--speed",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="So many times as fast as it went; 0 is without pauses.",
)
@click.option(
    "--max-pause", type=click.FloatRange(0), default=2.0, show_default=True, help="No pause is longer, in seconds."
)
@directory_option
@key_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line, for programs.")
@reporting_errors
def replay(episode_id: str, speed: float, max_pause: float, directory: Path, as_json: bool) -> None:
    """Show an episode again as it went, event by event, with its pauses. ID may be the beginning of an id."""
    from stepwell.cli.replaying import run_replay

    run_replay(episode_id, directory, speed=speed, longest=max_pause, as_json=as_json)


@click.command(
    epilog=example(
        "stepwell completion bash > ~/.local/share/bash-completion/completions/stepwell",
        "stepwell completion fish > ~/.config/fish/completions/stepwell.fish",
    ),
    short_help="Print what makes a shell complete all this.",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), default="bash")
@json_option
@reporting_errors
def completion(shell: str, as_json: bool) -> None:
    """Print what makes a shell complete commands, options and episode ids."""
    from click.shell_completion import get_completion_class

    from stepwell.cli.app import cli
    from stepwell.cli.output import print_json

    kind = get_completion_class(shell)
    assert kind is not None
    # Not `source()` of the bash class: that runs a bash to look at its version.
    script = kind.source_template % kind(cli, {}, "stepwell", "_STEPWELL_COMPLETE").source_vars()
    if as_json:
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)


COMMANDS = (tail, replay, completion)
