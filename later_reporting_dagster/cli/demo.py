"""`later-reporting demo`: fetch synthetic data into a folder, roll it up, check it, and compare organic and paid."""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from later_reporting_dagster.cli.child_processes import interruptible, run_until_stopped
from later_reporting_dagster.cli.terminal_text import one_line
from later_reporting_dagster.contract import ApiVersion
from later_reporting_dagster.defs.report import REPORT_FILE
from later_reporting_dagster.defs.settings import REPORT
from later_reporting_dagster.lake.raw_tables import POST_METRICS_DAILY
from later_reporting_dagster.rollups.rollup_tables import CAMPAIGN_RESULTS
from later_reporting_dagster.sandbox import BANNER, SandboxOptions, World, create_app, running_server, two_years_before

if TYPE_CHECKING:
    import pyarrow as pa

    from later_reporting_dagster.cli.in_process_runs import RunOutcome

# Copied to the demo's DAGSTER_HOME. docs/deploying.md recommends the same file for a laptop.
DAGSTER_YAML = Path(__file__).with_name("dagster.yaml")


def run_demo(
    *,
    directory: Path,
    start: date,
    end: date,
    instances: int,
    posts_per_day: int,
    seed: int,
    api_version: ApiVersion,
    ui_port: int | None,
) -> "list[RunOutcome]":
    """Materialize and check all assets for a range of days, and print organic against paid by platform.

    Args:
        directory: folder for the lake and for `DAGSTER_HOME`.
        start: first day.
        end: last day, inclusive.
        instances: number of instances.
        posts_per_day: average number of posts per day and instance.
        seed: seed of the synthetic data.
        api_version: API version that the sandbox serves.
        ui_port: port on which to serve the Dagster UI afterwards, until interrupted; None for no UI.

    Returns:
        The outcome of each run.

    Raises:
        click.UsageError: the directory cannot be created.
        click.ClickException: a run was interrupted, or the UI ended by itself.
    """
    click.echo(BANNER)
    options = SandboxOptions(api_version=api_version)
    world = World(
        first_day=two_years_before(end), last_day=end, seed=seed, instances=instances, posts_per_day=posts_per_day
    )
    with interruptible(), running_server(create_app(world, options=options)) as base_url:
        environment = _environment(directory, base_url=base_url, options=options, start=start)
        # Set before the definitions are imported, because they read it at import.
        os.environ.update(environment)
        outcomes = _run_all(start, end)
        _print_results(start, end)
        click.echo(f"\nThe lake:      {environment['LATER_LAKE_ROOT']}")
        click.echo(f"Dagster home:  {environment['DAGSTER_HOME']}")
        if ui_port is None:
            click.echo(f"See it in the UI:  {_ui_command()}")
        click.echo(f"The report:    {environment['LATER_LAKE_ROOT']}/{REPORT}/{REPORT_FILE}")
        if ui_port is not None and all(outcome.succeeded for outcome in outcomes):
            _serve_ui(ui_port)
    return outcomes


def _ui_command() -> str:
    """Return the command that repeats this demo and then serves the UI."""
    context = click.get_current_context()
    given = [
        parameter
        for parameter in context.command.params
        if parameter.name and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    options = [text for each in given for text in (each.opts[0], str(context.params[str(each.name)]))]
    return shlex.join(["later-reporting", "demo", *options, "--ui"]) if options else "make ui"


def _environment(directory: Path, *, base_url: str, options: SandboxOptions, start: date) -> Mapping[str, str]:
    home = directory / "dagster-home"
    dagster_yaml = home / "dagster.yaml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not dagster_yaml.exists():
            shutil.copyfile(DAGSTER_YAML, dagster_yaml)
    except OSError as error:
        raise click.UsageError(f"--directory: {error}. Name a folder that can be written.") from error
    return {
        "DAGSTER_HOME": str(home),
        "LATER_BASE_URL": base_url,
        "LATER_CLIENT_ID": options.client_id,
        "LATER_CLIENT_SECRET": options.client_secret,
        "LATER_ACCESS_TOKEN": "",
        "LATER_API_VERSION": "auto",
        "LATER_INSTANCE_IDS": "",
        "LATER_LAKE_ROOT": str(directory / "lake"),
        "LATER_START_DATE": start.isoformat(),
    }


def _run_all(start: date, end: date) -> "list[RunOutcome]":
    """Materialize all assets and evaluate all checks; print the check results."""
    from later_reporting_dagster.cli import in_process_runs
    from later_reporting_dagster.cli.progress_bar import progress_bar
    from later_reporting_dagster.cli.project import ENVIRONMENT_MODULE, load_project
    from later_reporting_dagster.cli.refresh import refresh_all
    from later_reporting_dagster.defs.partitions import range_tags

    project = load_project(ENVIRONMENT_MODULE, name=None)
    outcomes: list[RunOutcome] = []

    def add(outcome: "RunOutcome") -> None:
        if outcome.is_interrupted:
            raise click.ClickException(str(outcome.error))
        outcomes.append(outcome)

    with in_process_runs.dagster_instance() as instance:
        with progress_bar() as show:
            fetched = project.settings.fetched_tables
            tags = range_tags(start, end)
            add(in_process_runs.materialize(project, fetched, instance=instance, tags=tags, on_progress=show))
        for outcome in refresh_all(project, instance=instance):
            add(outcome)
        add(in_process_runs.evaluate_checks(project, instance=instance))
    for evaluation in outcomes[-1].checks:
        mark = click.style("ok  ", fg="green") if evaluation.passed else click.style("FAIL", fg="red")
        click.echo(f"{mark}  {evaluation.asset_key.path[-1]}: {evaluation.check_name}: {evaluation.description}")
    return outcomes


# A rate divides sums over the rows that report engagements, and impressions above 0.
_COMPARISON = """
SELECT *, paid_engagement_rate / organic_engagement_rate AS paid_lift
FROM (
    SELECT
        platform,
        sum(impressions) AS organic_impressions,
        sum(paid_impressions) AS paid_impressions,
        100 * sum(paid_impressions) / (sum(impressions) + sum(paid_impressions)) AS paid_share_of_impressions,
        100 * sum(engagements) FILTER (impressions > 0)
            / sum(impressions) FILTER (engagements IS NOT NULL) AS organic_engagement_rate,
        100 * sum(paid_engagements) FILTER (paid_impressions > 0)
            / sum(paid_impressions) FILTER (paid_engagements IS NOT NULL) AS paid_engagement_rate
    FROM post_metrics_daily
    WHERE date BETWEEN '{start}' AND '{end}'
    GROUP BY platform
)
ORDER BY platform
"""
# Column of the comparison, its heading over two lines, and the format of its values.
_COMPARISON_COLUMNS = (
    ("organic_impressions", "organic\nimpressions", "{:,}"),
    ("paid_impressions", "paid\nimpressions", "{:,}"),
    ("paid_share_of_impressions", "paid\nshare", "{:.1f} %"),
    ("organic_engagement_rate", "organic\nrate", "{:.2f} %"),
    ("paid_engagement_rate", "paid\nrate", "{:.2f} %"),
    ("paid_lift", "paid\nlift", "{:.2f} ×"),
)


# The campaigns with the highest ad spend of all stored days.
_CAMPAIGNS = """
SELECT
    coalesce(campaign_name, campaign_id::VARCHAR) AS campaign, paid_ad_spend, estimated_content_cost,
    paid_return_on_ad_spend, value_per_content_cost
FROM campaign_results
WHERE time_window = 'all' AND paid_ad_spend IS NOT NULL
ORDER BY paid_ad_spend DESC, campaign_id
LIMIT 5
"""
_CAMPAIGN_COLUMNS = (
    ("paid_ad_spend", "ad spend\nUSD", "{:,.2f}"),
    ("estimated_content_cost", "content cost\nUSD", "{:,.2f}"),
    ("paid_return_on_ad_spend", "return on\nad spend", "{:.2f} ×"),
    ("value_per_content_cost", "value per\ncontent cost", "{:.2f} ×"),
)


def _print_results(start: date, end: date) -> None:
    """Print organic beside paid by platform, and spend and return of campaigns."""
    from later_reporting_dagster.defs.resource import LaterReportingResource
    from later_reporting_dagster.lake import POST_COLUMNS, Table
    from later_reporting_dagster.reading import run_query

    lake = LaterReportingResource.from_environment().resolved().lake()
    posts = Table(POST_METRICS_DAILY.name, POST_COLUMNS)
    comparison = run_query(_COMPARISON.format(start=start, end=end), lake, [posts])
    _print_table(f"Organic against paid, {start} to {end}", "platform", comparison, columns=_COMPARISON_COLUMNS)
    results = Table(CAMPAIGN_RESULTS.name, CAMPAIGN_RESULTS.columns, is_partitioned=False)
    campaigns = run_query(_CAMPAIGNS, lake, [results])
    _print_table("Campaigns with the highest ad spend", "campaign", campaigns, columns=_CAMPAIGN_COLUMNS)


def _print_table(title: str, label: str, rows: "pa.Table", *, columns: Sequence[tuple[str, str, str]]) -> None:
    """Print rows with a column of labels. An empty cell means *not available*.

    Args:
        title: the title.
        label: the column with the labels.
        rows: the rows.
        columns: the other columns: name, heading over two lines, and format of the values.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(label)
    for _, heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows.to_pylist():
        values = [(row[column], format_) for column, _, format_ in columns]
        cells = ["" if value is None else format_.format(value) for value, format_ in values]
        table.add_row(escape(one_line(row[label] or "other")), *cells)
    Console().print(table)


def _serve_ui(port: int) -> None:
    click.echo(f"The Dagster UI:  http://127.0.0.1:{port}  (Ctrl-C stops it)")
    command = [sys.executable, "-m", "dagster", "dev", "-m", "later_reporting_dagster.definitions"]
    exit_code = run_until_stopped([*command, "-h", "127.0.0.1", "-p", str(port)])
    if exit_code is not None:
        raise click.ClickException(f"dagster dev ended by itself with exit code {exit_code}: see its log above")
    click.echo("The Dagster UI has stopped.")
