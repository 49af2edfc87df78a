"""What a launch came to: results on stdout, errors and tables on stderr."""

import json
import os
import sys
from pathlib import Path

from pear_cli.errors import PearError
from pear_cli.jobs import Record
from pear_cli.streams import until_closed


def report(command: str, records: list[Record], as_json: bool, quiet: bool) -> None:
    """Results to stdout, one line a job; errors to stderr, each with the overrides that only its job has."""
    common = set.intersection(*(set(record["overrides"]) for record in records)) if records else set()
    for record in records:
        error = record.get("error")
        trace = error.pop("traceback", "") if error is not None else ""
        with until_closed():
            if as_json:
                print(json.dumps(record), flush=True)
            elif "checks" in record:
                _show_checks(record, common if len(records) > 1 else None)
            elif error is None:
                print(record["artifact"], flush=True)
        if error is not None:
            own = " ".join(word for word in record["overrides"] if word not in common)
            job = f"job {record['job']} ({own}): " if own else ""
            complain(command, job + error["message"], trace)
    evaluated = [Path(record["artifact"]) for record in records if record.get("stage") == "eval"]
    if evaluated and not quiet:
        try:
            _show(evaluated, share_map=command == "run" and len(records) == 1)
        except PearError as error:  # the results stand, whatever becomes of their table
            complain(command, f"no table: {error}")


def complain(command: str, message: str, trace: str = "") -> None:
    """Print an error to stderr, after its traceback if PEAR_TRACEBACK=1."""
    if trace and os.environ.get("PEAR_TRACEBACK") == "1":
        print(trace, file=sys.stderr, end="")
    print(f"pear {command}: {message}", file=sys.stderr, flush=True)


def _show_checks(record: Record, common: set[str] | None) -> None:
    """The table of an audit, on stdout; in a sweep, below the overrides that only its job has."""
    from pear_cli.report import checks, layout

    if common is not None:
        print(" ".join(word for word in record["overrides"] if word not in common))
    checks.print_checks(record["checks"], layout.console())


def _show(evaluated: list[Path], share_map: bool) -> None:
    """Who serves where in a single model, then what the evaluations came to, on stderr."""
    from pear_cli.progress import console
    from pear_cli.report import benchmark, show, standings, table
    from pear_cli.store import Artifact, Store

    store = Store(evaluated[0].parent.parent)
    artifacts = [Artifact.at(path) for path in evaluated]
    if share_map:
        show.print_share_map(artifacts[0], store, console)
    rows = table.closing_rows(artifacts, store)
    table.print_closing(rows, console)
    if (swept := benchmark.of(rows)) is not None:
        standings.print_averages(benchmark.standings(rows, swept), swept, console)
