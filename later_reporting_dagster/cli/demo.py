"""`later-reporting demo`: fetch synthetic data into a folder, roll it up, check it, and compare organic and paid."""

import os
import shlex
import shutil
import signal
import sys
from datetime import date
from pathlib import Path
from textwrap import fill

import click
import dagster as dg
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as PrintedTable
from rich.text import Text

from later_reporting_dagster.cli.doctor import Mark, colored
from later_reporting_dagster.cli.in_process_runs import RunOutcome, dagster_instance, materialize
from later_reporting_dagster.cli.project import ENVIRONMENT_MODULE, Project, check_owner, load_project
from later_reporting_dagster.cli.refresh import refresh_all
from later_reporting_dagster.contract.safe_line import one_line
from later_reporting_dagster.defs.checks.check import WARN
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.lake.sql_query import run_query
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY
from later_reporting_dagster.rollups.rollup_tables import CAMPAIGN_RESULTS
from later_reporting_dagster.server.sandbox import BANNER

# Copied to the demo's DAGSTER_HOME. docs/deploying.md recommends the same file for a laptop.
DAGSTER_YAML = Path(__file__).with_name("dagster.yaml")


def run_demo(*, directory: Path, start: date, end: date, ui_port: int | None) -> list[RunOutcome]:
    """Materialize and check all assets of the demo mode for a range of days, and print organic against paid.

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
    project = load_project(ENVIRONMENT_MODULE, name=None)
    outcomes = _run_all(project, start, end)
    comparison = _COMPARISON.replace("FIRST_DAY", f"'{start}'").replace("LAST_DAY", f"'{end}'")
    _print_rows(f"Organic against paid, {start} to {end}", comparison, project)
    _print_rows("Campaigns with the highest ad spend of the last 28 days", _CAMPAIGNS, project)
    click.echo(f"\nThe lake:      {lake}")
    click.echo(f"Dagster home:  {home}")
    if ui_port is None:
        click.echo(f"See it in the UI:  {shlex.join([*sys.argv, '--ui'])}")
    click.echo(f"The report:    {project.report_location()}")
    if ui_port is not None and all(outcome.succeeded for outcome in outcomes):
        click.echo(f"The Dagster UI:  http://127.0.0.1:{ui_port}  (Ctrl-C stops it)")
        sys.stdout.flush()
        os.chdir(directory)  # Dagster reads .env, and imports modules, of the current folder
        command = [sys.executable, "-m", "dagster", "dev", "-m", ENVIRONMENT_MODULE]
        os.execv(sys.executable, [*command, "-h", "127.0.0.1", "-p", str(ui_port)])  # noqa: S606 - no shell needed
    return outcomes


def _run_all(project: Project, start: date, end: date) -> list[RunOutcome]:
    with dagster_instance() as instance:
        fetched = materialize(project, project.settings.fetched_tables, instance=instance, tags=range_tags(start, end))
        outcomes = [fetched, *refresh_all(project, instance=instance)]
    checks = {(each.asset_key, each.check_name): each for outcome in outcomes for each in outcome.checks}
    for check in checks.values():
        click.echo(check_line(check))
    return outcomes


def check_line(check: dg.AssetCheckEvaluation) -> str:
    """Return the result of a check as a line: its mark, asset, name and description."""
    mark: Mark = "ok" if check.passed else "WARN" if check.severity is WARN else "FAIL"
    return f"{colored(mark)}  {check.asset_key.path[-1]}: {check.check_name}: {check.description}"


# A rate divides sums over the rows that report engagements, and impressions other than 0.
_COMPARISON = """
SELECT
    coalesce(platform, 'other') AS platform,
    format('{:,}', organic::BIGINT) AS "organic impressions",
    format('{:,}', paid::BIGINT) AS "paid impressions",
    format('{:.1f} %', 100 * paid / (organic + paid)) AS "paid share",
    format('{:.2f} %', organic_rate) AS "organic rate",
    format('{:.2f} %', paid_rate) AS "paid rate",
    format('{:.2f} ×', paid_rate / organic_rate) AS "rate ratio"
FROM (
    SELECT
        platform,
        sum(impressions) AS organic,
        sum(paid_impressions) AS paid,
        100 * sum(engagements) FILTER (impressions <> 0)
            / sum(impressions) FILTER (engagements IS NOT NULL) AS organic_rate,
        100 * sum(paid_engagements) FILTER (paid_impressions <> 0)
            / sum(paid_impressions) FILTER (paid_engagements IS NOT NULL) AS paid_rate
    FROM (
        SELECT DISTINCT ON (date, instance_id, post_id) *  -- a post of several campaigns has a row for each
        FROM post_metrics_daily
        WHERE date BETWEEN FIRST_DAY AND LAST_DAY
        ORDER BY campaign_id
    )
    GROUP BY platform
)
ORDER BY platform
"""
_CAMPAIGNS = """
SELECT
    coalesce(campaign_name, campaign_id::VARCHAR) AS campaign,
    format('{:,.2f}', ad_spend) AS "ad spend USD",
    format('{:.2f} ×', return_on_ad_spend) AS "return on ad spend",
    format('{:,.2f}', ad_spend_per_click) AS "ad spend per click USD",
    format('{:,}', tracking_links_conversions) AS "conversions by links"
FROM campaign_results
WHERE time_window = '28d' AND ad_spend IS NOT NULL
ORDER BY ad_spend DESC, campaign_id
LIMIT 5
"""


def _print_rows(title: str, sql: str, project: Project) -> None:
    """Print the rows of a query, whose first column has their labels. An empty cell means *not available*."""
    tables = [POST_METRICS_DAILY.table, CAMPAIGN_RESULTS.table]
    rows = run_query(sql, project.later.lake(), tables)
    table = PrintedTable(title=title, box=SIMPLE_HEAD, pad_edge=False)
    label, *others = rows.column_names
    table.add_column(label)
    for name in others:
        table.add_column(fill(name, 8, break_long_words=False), justify="right", no_wrap=True)
    for row in rows.to_pylist():
        table.add_row(*(Text(one_line(text or "")) for text in row.values()))
    Console().print(table)
