"""What commands print about their runs: what was written, what failed, and the results of checks."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any

import click
import dagster as dg

from later_reporting_dagster.cli.doctor import colored
from later_reporting_dagster.cli.in_process_runs import RunOutcome
from later_reporting_dagster.contract.safe_line import one_line
from later_reporting_dagster.defs.checks.check import WARN
from later_reporting_dagster.lake.tables import OF_INSTANCES

MAX_LISTED_FAILURES = 50


def printed(runs: Iterable[RunOutcome]) -> list[RunOutcome]:
    """Return the outcomes of runs; print what each has written as soon as it is over."""
    outcomes = []
    for outcome in runs:
        outcomes.append(outcome)
        for line in outcome.written:
            click.echo(line)
    return outcomes


def report_failures(outcomes: Sequence[RunOutcome]) -> None:
    """Print what failed, and exit with 1 if anything did."""
    found = [failure for outcome in outcomes for failure in outcome.failures]
    for failure in found[:MAX_LISTED_FAILURES]:
        click.echo(f"failed  {failure.asset}  {one_line(failure.subject)}  {one_line(failure.reason)}", err=True)
    if len(found) > MAX_LISTED_FAILURES:
        click.echo(f"failed  … and {len(found) - MAX_LISTED_FAILURES} more: see the run in the Dagster UI", err=True)
    for outcome in outcomes:
        if outcome.error:
            click.echo(f"Error: {one_line(outcome.error)}", err=True)
    if not all(outcome.succeeded for outcome in outcomes):
        raise SystemExit(1)


def warnings_of(outcomes: Sequence[RunOutcome], days: tuple[date, date] | None) -> Iterator[str]:
    """Yield the warnings of fetches, also of tables without rows if all files of a range of days were written."""
    for fetch in [fetch for outcome in outcomes for fetch in outcome.fetches]:
        yield from map(one_line, fetch.warnings)
        if days and fetch.table_name in OF_INSTANCES and fetch.written and not fetch.rows:
            yield (
                f"{fetch.table_name} has no rows from {days[0]} to {days[1]}: all {fetch.written} files are empty."
                " Check the days, the instances (--instances, LATER_INSTANCE_IDS) and, with `later-reporting doctor`,"
                " the scope of the credentials."
            )


def as_json(outcomes: Sequence[RunOutcome], *, warnings: Sequence[str]) -> dict[str, Any]:
    """Return what runs did, for programs."""
    return {
        "succeeded": all(outcome.succeeded for outcome in outcomes),
        "written": [each for outcome in outcomes for each in outcome.written],
        "failed": [failure._asdict() for outcome in outcomes for failure in outcome.failures],
        "errors": [one_line(outcome.error) for outcome in outcomes if outcome.error],
        "warnings": warnings,
        "checks": [
            {
                "asset": check.asset_key.to_user_string(),
                "check": check.check_name,
                "passed": check.passed,
                "severity": check.severity.value,
                "description": check.description,
            }
            for check in latest_checks(outcomes)
        ],
    }


def latest_checks(outcomes: Sequence[RunOutcome]) -> list[dg.AssetCheckEvaluation]:
    """Return the latest result of each check."""
    return [*{(each.asset_key, each.check_name): each for outcome in outcomes for each in outcome.checks}.values()]


def check_summary(checks: Sequence[dg.AssetCheckEvaluation]) -> str:
    """Return how many checks passed, and a line for each other one."""
    others = [check for check in checks if not check.passed]
    warnings = sum(check.severity is WARN for check in others)
    counts = [
        f"{len(checks) - len(others)} checks passed",
        *([f"{warnings} warning{'s' * (warnings > 1)}"] if warnings else []),
        *([f"{len(others) - warnings} failed"] if len(others) > warnings else []),
    ]
    lines = [
        f"{colored('WARN' if check.severity is WARN else 'FAIL')}  {check.asset_key.path[-1]}: {check.check_name}:"
        f" {check.description}"
        for check in others
    ]
    return "\n  ".join([", ".join(counts) + (":" if others else "."), *lines])
