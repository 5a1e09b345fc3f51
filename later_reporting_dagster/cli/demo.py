"""`later-reporting demo`: fetch synthetic data into a folder, roll it up, check it, and print a summary."""

import os
import shlex
import shutil
import signal
import sqlite3
import sys
from datetime import date
from pathlib import Path

import click
import sqlalchemy

from later_reporting_dagster.cli.in_process_runs import RunOutcome, dagster_instance
from later_reporting_dagster.cli.project import ENVIRONMENT_MODULE, check_owner, load_project
from later_reporting_dagster.cli.query_output import to_table
from later_reporting_dagster.cli.refresh import backfill_all
from later_reporting_dagster.cli.run_report import check_summary, latest_checks
from later_reporting_dagster.lake.sql_query import run_query
from later_reporting_dagster.rollups.rollup_tables import BY_PLATFORM
from later_reporting_dagster.server.sandbox import BANNER

MAIN_MODULE = "later_reporting_dagster.cli.main"
# Copied to the demo's DAGSTER_HOME. docs/deploy.md recommends the same file for a laptop.
DAGSTER_YAML = Path(__file__).with_name("dagster.yaml")


def run_demo(*, directory: Path, start: date, end: date, ui_port: int | None) -> list[RunOutcome]:
    """Materialize and check all assets of the demo mode for a range of days, and print a summary.

    The lake and `DAGSTER_HOME` are in the directory. With a port, this process then becomes that of the Dagster UI.
    """
    click.echo(BANNER)
    # A shell that starts a process in the background makes it ignore SIGINT, and Dagster then ignores SIGTERM as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lake, home = directory / "lake", directory / "dagster-home"
    try:
        home.mkdir(parents=True, exist_ok=True)
        check_owner(directory, home, home / "dagster.yaml", advice="name another folder with --directory")
        if not (home / "dagster.yaml").exists():
            shutil.copyfile(DAGSTER_YAML, home / "dagster.yaml")
    except OSError as error:
        raise click.UsageError(f"--directory: {error}. Name a folder that can be written.") from error
    os.environ.update(
        DAGSTER_HOME=str(home),
        LATER_DEMO_MODE="true",
        LATER_INSTANCE_IDS="",
        LATER_LAKE_ROOT=str(lake),
        LATER_START_DATE=str(start),
    )
    sqlalchemy.event.listen(sqlalchemy.Pool, "connect", commit_without_sync)
    project = load_project(ENVIRONMENT_MODULE, name=None)
    click.echo(f"Fetching {start} to {end} from the sandbox, a local server of the API", err=True)
    with dagster_instance() as instance:
        outcomes = [*backfill_all(project, start, end, instance=instance)]
    click.echo(check_summary(latest_checks(outcomes)))
    summary = to_table(run_query(_SUMMARY, project.later.lake(), [BY_PLATFORM.table]))
    click.echo(f"\nOrganic and paid of the last 28 days, rates and shares in percent\n{summary}", nl=False)
    if ui_port is not None and all(outcome.succeeded for outcome in outcomes):
        click.echo(f"The Dagster UI:  http://127.0.0.1:{ui_port}  (Ctrl-C stops it)")
        sys.stdout.flush()
        os.chdir(directory)  # Dagster reads .env, and imports modules, of the current folder
        command = [sys.executable, "-m", "dagster", "dev", "-m", ENVIRONMENT_MODULE]
        os.execv(sys.executable, [*command, "-h", "127.0.0.1", "-p", str(ui_port)])  # noqa: S606 - no shell needed
    program = sys.argv[:1] if Path(sys.argv[0]).suffix != ".py" else [sys.executable, "-m", MAIN_MODULE]
    environment = ["env", "LATER_DEMO_MODE=true", f"LATER_LAKE_ROOT={lake}"]
    click.echo("\nNext: see the report, query the lake in SQL, or start the Dagster UI.\n")
    for command in (
        ["python3", "-m", "webbrowser", project.report_location()],
        [*environment, *program, "query", _QUERY],
        [*program, *sys.argv[1:], "--ui"],
    ):
        click.echo(f"  {shlex.join(command)}")
    return outcomes


def commit_without_sync(connection: object, _: object) -> None:
    """Let no commit to a SQLite database wait for the disk.

    Dagster commits an event up to four times, and waited for half of the demo. What is lost if the machine stops can be
    made anew.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


_QUERY = (
    "select post_date, creator_handle_name, content_cost, ad_spend from posts order by content_cost desc nulls last"
    " limit 5"
)
_SUMMARY = """
SELECT
    coalesce(platform, 'other') AS platform, organic_impressions, paid_impressions,
    round(paid_share_of_impressions, 1) AS paid_share, round(organic_engagement_rate, 2) AS organic_rate,
    round(paid_engagement_rate, 2) AS paid_rate, round(rate_ratio, 2) AS rate_ratio
FROM organic_paid_by_platform
WHERE time_window = '28d' AND scope = 'all'
ORDER BY 1
"""
