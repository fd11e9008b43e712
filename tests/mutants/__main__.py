"""Switch off one thing of the log after the other, and see that a test notices each.

    python -m tests.mutants log [--short] [--named] [--only PATTERN] [--jobs N] [--json]
    python -m tests.mutants operators [--jobs N] [--json] [FILE ...]
    python -m tests.mutants ports [--json]

`log`: the declared mutants, one or more for each row of the decision table, each promise of the format, and each part
that came later. `--short`: one for each, for CI. Exit status 1 if one is not noticed, or can no longer be made.

`operators`: mutmut makes mutants of every operator, constant and argument of recovery, with its tests, and tells the
share that is killed; exit status 1 if that is less than nine in ten. Takes about half an hour.

`ports`: for each rule of the published contract of the ports, a twin that breaks it; exit status 1 if one passes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from tests.mutants import operators
from tests.mutants.log import MUTANTS
from tests.mutants.mutant import matching, why_stale
from tests.mutants.ports import try_ports
from tests.mutants.report import Watching, print_table, summary
from tests.mutants.trial import WHOLE, BadBaselineError, try_all
from tests.mutants.workshop import ROOT


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    log = commands.add_parser("log", help="the declared mutants of the log")
    log.add_argument("--short", action="store_true", help="one mutant for each row, promise and part")
    log.add_argument("--named", action="store_true", help="where the tests named with a mutant pass, run no others")
    log.add_argument("--only", metavar="PATTERN", help="those whose name matches a regular expression")
    ops = commands.add_parser("operators", help="every operator of recovery, by mutmut")
    ops.add_argument("files", metavar="FILE", nargs="*", help=f"modules of stepstore.log ({' '.join(operators.FILES)})")
    of_ports = commands.add_parser("ports", help="twins of the ports with one rule broken each")
    of_ports.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    for command in (log, ops):
        command.add_argument("--jobs", type=int, default=2, help="how many at a time (2)")
        command.add_argument("--json", action="store_true", help="print the summary as JSON")
    options = parser.parse_args(arguments)
    if options.command == "ports":
        return _ports(options)
    return _log(options) if options.command == "log" else _operators(options)


def _ports(options: argparse.Namespace) -> int:
    verdicts = try_ports()
    survivors = [verdict for verdict in verdicts if verdict.noticed is None]
    if options.json:
        print(json.dumps([asdict(verdict) for verdict in verdicts]))
    else:
        for verdict in verdicts:
            print(
                f"{'survived' if verdict.noticed is None else 'noticed ':8}  {verdict.twin:24}  {verdict.rule}  {verdict.noticed or ''}"
            )
        print(f"{len(verdicts)} rules, {len(survivors)} survivors")
    return 1 if survivors or not verdicts else 0


def _log(options: argparse.Namespace) -> int:
    began = time.monotonic()
    stale = [(mutant, why) for mutant in MUTANTS if (why := why_stale(ROOT, mutant)) is not None]
    gone = {mutant.name for mutant, _why in stale}
    chosen = [m for m in matching(MUTANTS, options.only, short=options.short) if m.name not in gone]
    try:
        with Watching(len(chosen)) as watching:
            verdicts = try_all(chosen, options.jobs, () if options.named else WHOLE, watching.note)
    except BadBaselineError as error:
        print(f"a test fails without any mutant, so nothing can be said: {error}", file=sys.stderr)
        return 1
    seconds = time.monotonic() - began
    if options.json:
        print(json.dumps(summary(verdicts, stale, seconds)))
    else:
        print_table(verdicts, stale, seconds)
    return 0 if verdicts and not stale and all(verdict.is_good for verdict in verdicts) else 1


def _operators(options: argparse.Namespace) -> int:
    try:
        outcomes = operators.run(options.files or operators.FILES, options.jobs)
    except operators.CannotRunError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(operators.as_json(outcomes)))
    else:
        operators.print_outcomes(outcomes)
    return 0 if operators.total(outcomes).share >= operators.TARGET else 1


if __name__ == "__main__":
    raise SystemExit(main())
