"""What a launch came to: results on stdout, errors and tables on stderr."""

import json
import os
import sys
from pathlib import Path

from pear_cli.errors import PearError, printable
from pear_cli.launch.sweep.ledger import NOT_RUN
from pear_cli.launch.work import Record
from pear_cli.report.analysis import benchmark, listing
from pear_cli.report.terminal import checks, layout, show, stages, standings, sweeps, table
from pear_cli.store.artifact import Artifact
from pear_cli.store.store import Store
from pear_cli.system.progress import console
from pear_cli.system.streams import complain, until_closed


def report(command: str, records: list[Record], sweep: bool, as_json: bool, quiet: bool) -> None:
    """Results to stdout, one line a job; on stderr what evaluations came to, and at the end what failed.

    Args:
        command: its name, for messages.
        records: the result of each job.
        sweep: it was a sweep: failed jobs get a table, in which each has the overrides that only it has.
        as_json: print each record whole.
        quiet: nothing but errors on stderr.
    """
    common = set.intersection(*(set(record["overrides"]) for record in records)) if records else set()
    failed = [record for record in records if "error" in record]
    traces = [record["error"].pop("traceback", "") for record in failed]
    for record in records:
        with until_closed():
            if as_json:
                print(json.dumps(record), flush=True)
            elif "checks" in record:
                _show_checks(record, common if len(records) > 1 else None)
            elif "error" not in record:
                print(printable(record["artifact"]), flush=True)
    if not sweep and not quiet:
        for record in records:
            _show_stages(record)
    evaluated = [Path(record["artifact"]) for record in records if record.get("stage") == "eval"]
    if evaluated and not quiet:
        try:
            _show(evaluated, share_map=command == "run" and len(records) == 1)
        except PearError as error:  # the results stand, whatever becomes of their table
            complain(command, f"no table: {error}")
    if os.environ.get("PEAR_TRACEBACK") == "1":
        print("".join(traces), file=sys.stderr, end="")
    if sweep:
        _tell_failures(command, failed, len(records), common)
    else:
        for record in failed:
            complain(command, record["error"]["message"])


def _tell_failures(command: str, failed: list[Record], jobs: int, common: set[str]) -> None:
    """The table of jobs that failed or were not run, then how many there are of each."""
    if not failed:
        return
    sweeps.print_failures(failed, common if jobs > 1 else set(), layout.console(sys.stderr))
    idle = sum(record["error"].get("type") == NOT_RUN for record in failed)
    rest = f", {idle} not run" if idle else ""
    complain(command, f"{len(failed) - idle} of {jobs} jobs failed{rest}")


def _show_checks(record: Record, common: set[str] | None) -> None:
    """The table of an audit, on stdout; in a sweep, below the overrides that only its job has."""
    if common is not None:
        print(" ".join(word for word in record["overrides"] if word not in common))
    checks.print_checks(record["checks"], layout.console())


def _show_stages(record: Record) -> None:
    """What became of each stage of a single job, on stderr."""
    if "stages" in record:
        stages.print_stages(record["stages"], Store(Path(record["artifact"]).parent.parent), console)


def _show(evaluated: list[Path], share_map: bool) -> None:
    """Who serves where in a single model, then what the evaluations came to, on stderr."""
    store = Store(evaluated[0].parent.parent)
    artifacts = [Artifact.at(path) for path in evaluated]
    if share_map:
        show.print_share_map(artifacts[0], store, console)
    rows = [listing.row(artifact, store) for artifact in artifacts]
    table.print_closing(rows, console)
    if (swept := benchmark.common(rows)) is not None:
        standings.print_averages(benchmark.standings(rows, swept), swept, console)
