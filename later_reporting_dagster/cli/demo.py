"""`later-reporting demo`: the whole way, on synthetic data, in a folder of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from later_reporting_dagster.contract import Revision
from later_reporting_dagster.defs.report import REPORT, REPORT_FILE
from later_reporting_dagster.ingest.instance_dimension import INSTANCES
from later_reporting_dagster.ingest.raw_tables import POST_METRICS_DAILY, SOURCES
from later_reporting_dagster.sandbox import BANNER, SandboxOptions, World, create_app, running_sandbox, two_years_before

if TYPE_CHECKING:
    from later_reporting_dagster.cli.in_process_runs import RunOutcome

# No first-visit dialog, no telemetry, and a queue that is looked at every second: a demo is watched.
DAGSTER_YAML = """\
telemetry:
  enabled: false
nux:
  enabled: false
run_coordinator:
  module: dagster._core.run_coordinator
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: 1
"""


def run_demo(
    *,
    directory: Path,
    start: date,
    end: date,
    instances: int,
    posts_per_day: int,
    seed: int,
    revision: Revision,
    ui_port: int | None,
) -> "list[RunOutcome]":
    """Fetches `start` to `end` of a synthetic world into `directory`, rolls up, checks, and prints the comparison.

    With `ui_port`, then serves the Dagster UI on it until interrupted.
    """
    click.echo(BANNER)
    options = SandboxOptions(revision=revision)
    world = World(
        first_day=two_years_before(end), last_day=end, seed=seed, instances=instances, posts_per_day=posts_per_day
    )
    with running_sandbox(create_app(world, options=options)) as base_url:
        environment = _environment(directory, base_url=base_url, options=options, start=start)
        # Before the definitions load: they read it.
        os.environ.update(environment)
        outcomes = _fill(start, end)
        _print_comparison(start, end)
        click.echo(f"\nThe lake:      {environment['LATER_LAKE_ROOT']}")
        click.echo(f"Dagster home:  {environment['DAGSTER_HOME']}")
        if ui_port is None:
            click.echo("See it in the UI:  make ui   (or: later-reporting demo --ui)")
        click.echo(f"The report:    {environment['LATER_LAKE_ROOT']}/{REPORT}/{REPORT_FILE}")
        if ui_port is not None and all(outcome.succeeded for outcome in outcomes):
            _serve_ui(ui_port)
    return outcomes


def _environment(directory: Path, *, base_url: str, options: SandboxOptions, start: date) -> Mapping[str, str]:
    home = directory / "dagster-home"
    configuration = home / "dagster.yaml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not configuration.exists():
            configuration.write_text(DAGSTER_YAML)
    except OSError as error:
        raise click.UsageError(f"--directory: {error}. Name a folder that can be written.") from error
    return {
        "DAGSTER_HOME": str(home),
        "LATER_BASE_URL": base_url,
        "LATER_CLIENT_ID": options.client_id,
        "LATER_CLIENT_SECRET": options.client_secret,
        "LATER_ACCESS_TOKEN": "",
        "LATER_API_REVISION": "auto",
        "LATER_INSTANCE_IDS": "",
        "LATER_LAKE_ROOT": str(directory / "lake"),
        "LATER_START_DATE": start.isoformat(),
    }


def _fill(start: date, end: date) -> "list[RunOutcome]":
    from later_reporting_dagster.cli import in_process_runs
    from later_reporting_dagster.cli.progress_bar import progress_bar
    from later_reporting_dagster.defs.partitions import range_tags
    from later_reporting_dagster.rollups.periods import Span
    from later_reporting_dagster.rollups.rollup_tables import TABLES

    with in_process_runs.dagster_instance() as instance:
        with progress_bar() as show:
            raw = [source.asset for source in SOURCES]
            outcomes = [
                in_process_runs.materialize(raw, instance=instance, tags=range_tags(start, end), on_progress=show)
            ]
        outcomes.append(in_process_runs.materialize([INSTANCES], instance=instance))
        for span in Span:
            rollups = [table.name for table in TABLES if table.span is span]
            tags = None if span is Span.WINDOWS else range_tags(start, end, span=span)
            outcomes.append(in_process_runs.materialize(rollups, instance=instance, tags=tags))
        outcomes.append(in_process_runs.materialize([REPORT], instance=instance))
        outcomes.append(in_process_runs.evaluate_checks(instance=instance))
    for evaluation in outcomes[-1].checks:
        mark = click.style("ok  ", fg="green") if evaluation.passed else click.style("FAIL", fg="red")
        click.echo(f"{mark}  {evaluation.asset_key.path[-1]}: {evaluation.check_name}: {evaluation.description}")
    return outcomes


# A rate pairs engagements and impressions: of just the rows that report both.
_COMPARISON = """
SELECT *, paid_engagement_rate / organic_engagement_rate AS paid_lift
FROM (
    SELECT
        platform, sum(impressions) AS organic_impressions, sum(paid_impressions) AS paid_impressions,
        100 * sum(paid_impressions) / (sum(impressions) + sum(paid_impressions)) AS paid_share_of_impressions,
        100 * sum(engagements) FILTER (impressions IS NOT NULL)
            / sum(impressions) FILTER (engagements IS NOT NULL) AS organic_engagement_rate,
        100 * sum(paid_engagements) FILTER (paid_impressions IS NOT NULL)
            / sum(paid_impressions) FILTER (paid_engagements IS NOT NULL) AS paid_engagement_rate
    FROM post_metrics_daily
    WHERE date BETWEEN '{start}' AND '{end}'
    GROUP BY platform
)
ORDER BY platform
"""


def _print_comparison(start: date, end: date) -> None:
    """Organic beside paid, by platform, over all that the demo fetched. An empty cell is *not available*."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from later_reporting_dagster.defs.resource import LaterReportingResource
    from later_reporting_dagster.lake import POST_COLUMNS
    from later_reporting_dagster.lake import Table as LakeTable
    from later_reporting_dagster.reading import answer

    lake = LaterReportingResource.from_environment().process_config_and_initialize().lake()
    posts = LakeTable(POST_METRICS_DAILY.asset, POST_COLUMNS)
    rows = answer(_COMPARISON.format(start=start, end=end), lake, [posts]).to_pylist()
    table = Table(title=f"Organic against paid, {start} to {end}", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("platform")
    for first, second in (
        ("organic", "impressions"),
        ("paid", "impressions"),
        ("paid", "share"),
        ("organic", "rate"),
        ("paid", "rate"),
        ("paid", "lift"),
    ):
        table.add_column(f"{first}\n{second}", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["platform"] or "other",
            _shown(row["organic_impressions"], "{:,}"),
            _shown(row["paid_impressions"], "{:,}"),
            _shown(row["paid_share_of_impressions"], "{:.1f} %"),
            _shown(row["organic_engagement_rate"], "{:.2f} %"),
            _shown(row["paid_engagement_rate"], "{:.2f} %"),
            _shown(row["paid_lift"], "{:.2f} ×"),
        )
    Console().print(table)


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _serve_ui(port: int) -> None:
    click.echo(f"The Dagster UI:  http://127.0.0.1:{port}  (Ctrl-C stops it)")
    command = [sys.executable, "-m", "dagster", "dev", "-m", "later_reporting_dagster.definitions"]
    try:
        subprocess.run([*command, "-h", "127.0.0.1", "-p", str(port)], check=False)
    except KeyboardInterrupt:
        click.echo("Stopped.")
