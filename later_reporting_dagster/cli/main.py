"""The commands of `later-reporting`. Usage errors are one line each; long commands show their progress."""

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from later_reporting_dagster import sandbox as sandbox_package
from later_reporting_dagster.cli.options import (
    AssetName,
    Day,
    FiniteNumber,
    check_host,
    current_project,
    list_and_exit,
    one_line_errors,
    prefix_errors_with,
)
from later_reporting_dagster.cli.serve import serve_command
from later_reporting_dagster.cli.terminal_text import one_line
from later_reporting_dagster.contract import API_VERSIONS
from later_reporting_dagster.contract.days import newest_day
from later_reporting_dagster.endpoint.http_server import DEFAULT_PORT
from later_reporting_dagster.ingest.dimensions import INSTANCES_TABLE
from later_reporting_dagster.lake.campaign_tables import CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGNS_TABLE
from later_reporting_dagster.lake.raw_tables import RAW_TABLES
from later_reporting_dagster.rollups.periods import Period
from later_reporting_dagster.rollups.rollup_tables import DAY_TABLES, WEEK_AND_MONTH_TABLES

_Command = TypeVar("_Command", bound=Callable[..., Any])

if TYPE_CHECKING:
    from later_reporting_dagster.cli.in_process_runs import RunOutcome
    from later_reporting_dagster.cli.project import Project
    from later_reporting_dagster.defs.resource import LaterReportingResource

# Commands import Dagster and DuckDB themselves: these take seconds, and `--help` and `sandbox` need neither.

POSTS_ASSETS = tuple(raw_table.name for raw_table in RAW_TABLES)
FETCHED_ASSETS = (*POSTS_ASSETS, CAMPAIGN_PERFORMANCE_TABLE)
QUARANTINED_ASSETS = (*FETCHED_ASSETS, CAMPAIGNS_TABLE)
PERIODS_BY_ROLLUP = {table.name: table.period for table in (*DAY_TABLES, *WEEK_AND_MONTH_TABLES)}
MAX_LISTED_FAILURES = 50

_OK, _FAIL = click.style("ok  ", fg="green"), click.style("FAIL", fg="red")
_WARN = click.style("WARN", fg="yellow")

_api_version = click.option(
    "--api-version", default="paged", show_default=True, type=click.Choice(list(API_VERSIONS)),
    help="API version that the sandbox serves: paged (numbered pages with totals) or cursor (cursors without"
    " totals; a query names its metrics).",
)  # fmt: skip


def _asset_option(names: Sequence[str]) -> Callable[[_Command], _Command]:
    """Return the option that selects some of the tables that a command works on."""
    return click.option(
        "--asset", "assets", multiple=True, type=AssetName(names), help="Only this table; repeatable. Default: all."
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="later-reporting-dagster")
@click.option(
    "-m", "--module", metavar="MODULE",
    help="Module with your definitions. Default: that of the dg project in this folder, else the environment.",
)  # fmt: skip
@click.option("--name", help="Name of the component, if the definitions have several.")
@click.pass_context
def main(context: click.Context, module: str | None, name: str | None) -> None:
    """Fetch Later's post performance into a lake, and compare organic with paid.

    \b
    Try it without credentials:
      later-reporting demo
    Use the real API: set LATER_CLIENT_ID, LATER_CLIENT_SECRET, LATER_LAKE_ROOT
    and DAGSTER_HOME, then check the setup and fetch some days:
      later-reporting doctor
      later-reporting backfill --asset later/posts_published \\
        --start 2024-01-01 --end 2024-01-30
      later-reporting refresh
    """  # noqa: D301 - click reads the character
    context.obj = module, name


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(0, 65_535),
    help="Port to listen on; 0 picks a free one.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the synthetic data.")
@click.option(
    "--instances",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Number of instances, besides two from the API reference.",
)
@click.option(
    "--posts-per-day", default=20, show_default=True, type=click.IntRange(0),
    help="Average number of posts per day and instance.",
)  # fmt: skip
@click.option("--latency", default=0.0, show_default=True, type=FiniteNumber(0), help="Seconds before each response.")
@click.option(
    "--requests-per-window", default=120, show_default=True, type=click.IntRange(1),
    help="Rate limit: requests per window.",
)  # fmt: skip
@click.option(
    "--window",
    default=60.0,
    show_default=True,
    type=FiniteNumber(0, min_open=True),
    help="Rate limit: seconds per window.",
)
@click.option(
    "--token-lifetime", default=43_200, show_default=True, type=click.IntRange(1),
    help="Seconds until a token expires.",
)  # fmt: skip
@_api_version
@click.option(
    "--fault", "faults", multiple=True, metavar="NAME:PROBABILITY",
    callback=list_and_exit({name: fault.description for name, fault in sandbox_package.FAULTS.items()}),
    help="Inject a fault into a share of the requests, such as http-500:0.03; repeatable. `--fault list` lists all.",
)  # fmt: skip
@click.option(
    "--malformed-row", "malformed_rows", multiple=True, metavar="NAME:SHARE",
    callback=list_and_exit({name: row.description for name, row in sandbox_package.MALFORMATIONS.items()}),
    help="Alter a share of the rows, such as nan:0.01; repeatable. `--malformed-row list` lists all.",
)  # fmt: skip
@click.option(
    "--refuse-campaign-metric", "refused_campaign_metrics", multiple=True, metavar="NAME",
    help="Offer no such metric of campaigns, such as paidAdSpend; repeatable.",
)  # fmt: skip
@click.option(
    "--unusual-instance-ids", is_flag=True, help="Add instances whose ids need escaping in paths and query strings."
)
@click.option("--fault-seed", default=0, show_default=True, help="Seed that picks the affected requests and rows.")
@one_line_errors
def sandbox(
    *,
    host: str,
    port: int,
    seed: int,
    instances: int,
    posts_per_day: int,
    latency: float,
    requests_per_window: int,
    window: float,
    token_lifetime: int,
    api_version: str,
    faults: tuple[str, ...],
    malformed_rows: tuple[str, ...],
    refused_campaign_metrics: tuple[str, ...],
    unusual_instance_ids: bool,
    fault_seed: int,
) -> None:
    """Serve the API locally over synthetic data, until Ctrl-C.

    Prints the days that have posts, and the environment variables that point the
    client at it. To try how a fetch
    copes with a bad server, inject faults; their counts are printed at the end:

    \b
      later-reporting sandbox --fault http-500:0.03 --malformed-row nan:0.01

    A request with the header `X-Sandbox-Faults: off` gets no fault.
    """  # noqa: D301 - click reads the character
    with prefix_errors_with("--fault"):
        fault_rates = sandbox_package.parse_rates(faults, known=sandbox_package.FAULTS, kind="fault")
    with prefix_errors_with("--malformed-row"):
        row_rates = sandbox_package.parse_rates(
            malformed_rows, known=sandbox_package.MALFORMATIONS, kind="malformed row"
        )
    with prefix_errors_with("--refuse-campaign-metric"):
        options = sandbox_package.SandboxOptions(
            latency_seconds=latency,
            requests_per_window=requests_per_window,
            window_seconds=window,
            token_lifetime_seconds=token_lifetime,
            api_version=API_VERSIONS[api_version],
            refused_campaign_metrics=refused_campaign_metrics,
        )
    world = _world(seed=seed, instances=instances, posts_per_day=posts_per_day, unusual_ids=unusual_instance_ids)
    app = sandbox_package.FaultMiddleware(
        world, faults=fault_rates, malformed_rows=row_rates, seed=fault_seed, options=options
    )
    _serve(app, options, world=world, host=host, port=port)


def _world(*, seed: int, instances: int, posts_per_day: int, unusual_ids: bool) -> sandbox_package.World:
    """Return the synthetic data of the last two years."""
    return sandbox_package.World(
        first_day=sandbox_package.two_years_before(_yesterday()),
        last_day=_yesterday(),
        seed=seed,
        instances=instances,
        posts_per_day=posts_per_day,
        extra_instance_ids=(
            *sandbox_package.EXAMPLE_INSTANCE_IDS,
            *(sandbox_package.UNUSUAL_INSTANCE_IDS if unusual_ids else ()),
        ),
    )


def _serve(
    app: sandbox_package.FaultMiddleware,
    options: sandbox_package.SandboxOptions,
    *,
    world: sandbox_package.World,
    host: str,
    port: int,
) -> None:
    """Serve the sandbox until interrupted; print its settings at the start and counts of injected faults at the end."""
    from later_reporting_dagster.client.auth import is_loopback

    check_host(host)

    def print_settings(base_url: str) -> None:
        click.echo(f"export LATER_BASE_URL={base_url}")
        click.echo(f"export LATER_CLIENT_ID={options.client_id}")
        click.echo(f"export LATER_CLIENT_SECRET={options.client_secret}")
        if not is_loopback(host):
            click.echo("Clients on other machines need https: put a proxy with TLS before this server.", err=True)

    # Comments, so that a shell can evaluate the output.
    click.echo(f"# {sandbox_package.BANNER}")
    click.echo(f"# Posts from {world.first_day} to {world.last_day} (UTC); other days are empty.")
    with prefix_errors_with("--host, --port"):
        sandbox_package.serve(app, host=host, port=port, on_ready=print_settings)
    malformed_counts = {name: len(keys) for name, keys in app.altered.items()}
    for name, count in [*app.injected.items(), *malformed_counts.items()]:
        click.echo(f"{name:<25} {count}")


main.add_command(serve_command)


@main.command()
@one_line_errors
def instances() -> None:
    """List instances with their newest and missing days.

    Also shows when the API first and last listed each instance. Fetches the list of
    instances from the API, and writes nothing.
    """
    from later_reporting_dagster.cli.query_output import table_lines
    from later_reporting_dagster.defs.instances import current_instances, raw_files

    project = current_project()
    later, settings = project.later, project.settings
    _name_default_host(later, "Listing instances at")
    listed = asyncio.run(later.listed_instances())
    lake, configured, now = later.lake(), later.configured_instances(), datetime.now(UTC)
    rows = current_instances(lake, listed, raw_files(lake), configured=configured, settings=settings, now=now)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in table_lines(rows, width=width):
        click.echo(line)


@main.command()
@click.option("--asset", required=True, type=AssetName(), help="Asset to materialize, such as later/posts_published.")
@click.option("--start", type=Day(), help="First day, UTC. Required if the asset has partitions.")
@click.option("--end", type=Day(), help="Last day, UTC, inclusive.")
@click.option(
    "--instances", "instance_lists", multiple=True, metavar="ID[,ID…]",
    help="Fetch only these instances. Default: LATER_INSTANCE_IDS, else all that the API lists.",
)  # fmt: skip
@click.option("--only-missing", is_flag=True, help="Fetch only files that are not in the lake.")
@click.option(
    "--accept-shrinking", is_flag=True,
    help="Also replace files that lose more rows than LATER_SHRINK_LIMIT_PERCENT allows, or all values of their"
    " metrics. Use it if rows or values were really deleted.",
)  # fmt: skip
@click.option("--verbose", is_flag=True, help="Print the log of the run.")
@one_line_errors
def backfill(
    *,
    asset: str,
    start: date | None,
    end: date | None,
    instance_lists: tuple[str, ...],
    only_missing: bool,
    accept_shrinking: bool,
    verbose: bool,
) -> None:
    """Materialize a range of days of an asset as one run.

    The run is recorded in DAGSTER_HOME. For a weekly or monthly asset, it covers
    the weeks or months that contain these days. Prints what was written.

    \b
      later-reporting backfill --asset later/posts_published \\
        --start 2024-01-01 --end 2024-01-07

    Exits with 1 if anything failed, and lists the failures by day and instance;
    everything else is written.
    """  # noqa: D301 - click reads the character
    from later_reporting_dagster.cli import in_process_runs
    from later_reporting_dagster.cli.progress_bar import progress_bar
    from later_reporting_dagster.defs.partitions import range_tags

    project = current_project()
    days = _days(asset, start, end, project=project)
    instance_ids = _instance_ids(instance_lists)
    config = _run_config(
        asset, {"only_missing": only_missing, "accept_shrinking": accept_shrinking}, instances=instance_ids
    )
    if asset in (*FETCHED_ASSETS, CAMPAIGNS_TABLE, INSTANCES_TABLE):
        _name_default_host(project.later, "Fetching from")
    with in_process_runs.dagster_instance() as instance, progress_bar() as show:
        outcome = in_process_runs.materialize(
            project,
            [asset],
            instance=instance,
            tags=range_tags(*days, period=PERIODS_BY_ROLLUP.get(asset, Period.DAY)) if days else None,
            config=config,
            on_progress=show,
            verbose=verbose,
        )
    _print_written(outcome)
    _report_failures([outcome])
    if days:
        _print_warnings(outcome, *days)
    if asset in FETCHED_ASSETS:
        click.echo(f"Next: {_command_line('refresh')}")
    elif outcome.written:
        (written,) = outcome.written
        query = _command_line(f'query "SELECT * FROM {asset}"')
        click.echo(f"Next: {f'open {written.url}' if written.rows is None else query}")


@main.command()
@one_line_errors
def refresh() -> None:
    """Bring rollups, report and lists up to date with the posts in the lake.

    Materializes what is missing, what other posts or code have made outdated, and the
    tables of instances and campaigns, which need the API. Fetches no posts. The daemon
    does the same by itself, unless automation is off.
    """
    from later_reporting_dagster.cli import in_process_runs
    from later_reporting_dagster.cli.refresh import refresh_all, unknown_tables
    from later_reporting_dagster.defs.report import REPORT_FILE
    from later_reporting_dagster.defs.settings import REPORT

    project = current_project()
    outcomes: list[RunOutcome] = []
    _name_default_host(project.later, "Listing instances and campaigns at")
    with in_process_runs.dagster_instance() as instance:
        for outcome in refresh_all(project, instance=instance):
            outcomes.append(outcome)
            _print_written(outcome)
            if outcome.is_interrupted:
                break
    if unknown := unknown_tables(project):
        click.echo(f"No table of this version: {', '.join(unknown)}. Nothing updates them; nothing was deleted.")
    _report_failures(outcomes)
    click.echo("Everything is up to date.")
    if REPORT in project.settings.tables:
        click.echo(f"Next: open {project.later.lake().storage.location(f'{REPORT}/{REPORT_FILE}')}")


def _days(asset: str, start: date | None, end: date | None, *, project: "Project") -> tuple[date, date] | None:
    """Return the days to materialize; None if the asset has no partitions.

    Raises:
        click.UsageError: the asset is not defined, or the days do not fit it.
    """
    if asset not in project.settings.tables:
        raise click.UsageError(f"there is no {asset}: LATER_TABLES (tables) leaves it out")
    if asset not in (*FETCHED_ASSETS, *PERIODS_BY_ROLLUP):
        if start or end:
            raise click.UsageError(f"{asset} has no partitions: omit --start and --end")
        return None
    if start is None or end is None:
        raise click.UsageError(f"{asset} has partitions: set --start and --end")
    _check_range(start, end, first=project.settings.start_date)
    return start, end


def _run_config(asset: str, flags: dict[str, bool], *, instances: list[str]) -> dict[str, Any]:
    """Return the run config of an asset.

    Raises:
        click.UsageError: an option does not apply to the asset.
    """
    if instances and asset not in POSTS_ASSETS:
        raise click.UsageError(f"--instances applies to {' and '.join(POSTS_ASSETS)}: omit it for {asset}")
    if asset in POSTS_ASSETS:
        return {**flags, "instances": instances}
    if asset in FETCHED_ASSETS:
        return dict(flags)
    if any(flags.values()):
        raise click.UsageError(
            f"--only-missing and --accept-shrinking apply to {', '.join(FETCHED_ASSETS)}: omit them for {asset}"
        )
    return {}


def _print_warnings(outcome: "RunOutcome", start: date, end: date) -> None:
    for fetch in outcome.fetches:
        for warning in fetch.warnings:
            click.echo(f"Warning: {one_line(warning)}", err=True)
        if fetch.written and not fetch.rows:
            rows = "posts" if fetch.table_name in POSTS_ASSETS else "campaigns"
            click.echo(
                f"Warning: no {rows} from {start} to {end}: all {fetch.written} files are empty. Check the days, the"
                " instances (--instances, LATER_INSTANCE_IDS) and, with `later-reporting doctor`, the scope of the"
                " credentials.",
                err=True,
            )


def _check_range(start: date, end: date, *, first: date) -> None:
    if end < start:
        raise click.UsageError(f"--end {end} is before --start {start}")
    if start < first:
        raise click.UsageError(
            f"--start {start} is before the first partition: set LATER_START_DATE to an earlier day (it is {first})"
        )
    if end > _yesterday():
        raise click.UsageError(f"--end {end} is not over yet: the newest day that is over is {_yesterday()} (UTC)")


def _instance_ids(lists: tuple[str, ...]) -> list[str]:
    """Return the ids of comma-separated lists, checked to be usable as partitions."""
    from later_reporting_dagster.lake import encode_instance_id

    instance_ids = [instance_id.strip() for text in lists for instance_id in text.split(",") if instance_id.strip()]
    if lists and not instance_ids:
        raise click.UsageError("--instances names no instance: omit it to fetch all")
    with prefix_errors_with("--instances"):
        for instance_id in instance_ids:
            encode_instance_id(instance_id)
    return instance_ids


@main.command()
@_asset_option(POSTS_ASSETS)
@one_line_errors
def compact(assets: tuple[str, ...]) -> None:
    """Copy closed months to one file per instance.

    One file is faster to read than thirty. A month is closed once the daily schedule
    no longer fetches any of its days. The daily files stay as they are. Months whose copy
    is up to date are skipped.
    """
    from later_reporting_dagster.lake.table_compaction import compact_table

    project = current_project()
    lake, restate_days = project.later.lake(), project.settings.restate_days
    for asset in assets or POSTS_ASSETS:
        compaction = compact_table(lake, asset, restate_days=restate_days, now=datetime.now(UTC))
        click.echo(f"{asset}: {compaction}")


@main.command()
@_asset_option(QUARANTINED_ASSETS)
@click.option("--raw", is_flag=True, help="Also print the JSON of each row.")
@one_line_errors
def quarantine(assets: tuple[str, ...], raw: bool) -> None:
    """List quarantined rows by (day, instance) pair and reason.

    Reads only the lake. Once the API has corrected the rows, fetch their days again.
    """
    from later_reporting_dagster.cli.quarantine_listing import quarantine_lines

    lake = current_project().later.lake()
    lines = [line for asset in assets or QUARANTINED_ASSETS for line in quarantine_lines(lake, asset, raw=raw)]
    click.echo("\n".join(lines) or "No rows in quarantine.")


@main.command()
@click.argument("sql")
@click.option(
    "--format", "format_", default="table", show_default=True,
    type=click.Choice(["table", "csv", "json", "jsonl", "parquet"]),
    help="Output format. A table truncates long texts and many rows; all others are complete.",
)  # fmt: skip
@click.option("--output", metavar="FILE", help="Write to this file instead of standard output.")
@click.option(
    "--rows", default=100, show_default=True, type=click.IntRange(1), help="Maximum number of rows in a table."
)
@click.option("--memory-gb", default=2, show_default=True, type=click.IntRange(1), help="Memory limit, in GB.")
@one_line_errors
def query(*, sql: str, format_: str, output: str | None, rows: int, memory_gb: int) -> None:
    """Query the lake in SQL, with DuckDB.

    SQL `-` reads the query from standard input.

    Each table is a view; its column `date` is the day of the row's partition.

    \b
      later-reporting query "show tables"
      later-reporting query "describe posts_published"
      later-reporting query "select platform, sum(impressions)
        from posts_published group by platform"

    Queries only read. A table shows null as `null` and an empty text as `""`.
    """  # noqa: D301 - click reads the character
    from later_reporting_dagster.cli.memory_limit import limited_memory
    from later_reporting_dagster.cli.query_output import FORMATS, table_lines
    from later_reporting_dagster.defs.lake_tables import all_tables
    from later_reporting_dagster.reading import run_query

    on_terminal = output is None and sys.stdout.isatty()
    if format_ == "parquet" and on_terminal:
        raise click.UsageError("--format parquet is binary: write it to a file with --output, or pipe it")
    project = current_project()
    with limited_memory(memory_gb):
        result = run_query(
            sys.stdin.read() if sql == "-" else sql,
            project.later.lake(),
            all_tables(project.definitions, project.settings),
            memory_gb=memory_gb,
            on_note=lambda text: click.echo(one_line(text), err=True),
        )
        if format_ == "table":
            width = shutil.get_terminal_size().columns if on_terminal else None
            data = "".join(f"{line}\n" for line in table_lines(result.slice(0, rows), width=width)).encode()
        else:
            data = FORMATS[format_](result)
    if output is None:
        click.echo(data, nl=False)
    else:
        with prefix_errors_with(f"--output {output}"):
            Path(output).write_bytes(data)
    if format_ == "table" and result.num_rows > rows:
        click.echo(f"… {result.num_rows - rows:,} more rows: use --rows, or another --format for all", err=True)


@main.command()
@one_line_errors
def doctor() -> None:
    """Check the setup and print a fix for each problem.

    Checks settings, variables, token, API version, scope, campaigns, rate limit, clock, machines and lake,
    with a few requests. Exits with 1 if a check failed.
    """
    from later_reporting_dagster.cli.doctor import CheckResult, check_setup

    try:
        project = current_project()
    except click.ClickException as error:
        results = [CheckResult("settings", passed=False, message=error.message)]
    else:
        _name_default_host(project.later, "Checking")
        results = asyncio.run(check_setup(project))
    for result in results:
        mark = _FAIL if not result.passed else _WARN if result.warning else _OK
        click.echo(f"{mark}  {result.subject:<12} {one_line(result.message)}")
    if not all(result.passed for result in results):
        raise SystemExit(1)


@main.command()
@click.option(
    "--directory", default=".later-demo", show_default=True, type=click.Path(file_okay=False, path_type=Path),
    help="Folder for all files of the demo; delete it at any time.",
)  # fmt: skip
@click.option("--days", default=14, show_default=True, type=click.IntRange(1, 365), help="Days up to yesterday.")
@click.option(
    "--instances", "instance_count", default=4, show_default=True, type=click.IntRange(1), help="Number of instances."
)
@click.option(
    "--posts-per-day", default=8, show_default=True, type=click.IntRange(1), help="Posts per day and instance."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the synthetic data.")
@_api_version
@click.option("--ui", is_flag=True, help="Then serve the Dagster UI, until Ctrl-C.")
@click.option(
    "--ui-port", default=3000, show_default=True, type=click.IntRange(1, 65_535), help="Port of the Dagster UI."
)
@one_line_errors
def demo(
    *,
    directory: Path,
    days: int,
    instance_count: int,
    posts_per_day: int,
    seed: int,
    api_version: str,
    ui: bool,
    ui_port: int,
) -> None:
    """Fetch synthetic data, roll it up, check it, and print organic against paid.

    Needs no credentials. Starts the sandbox, runs all assets and checks against it, and
    prints the comparison by platform and the paths of the lake and of the report.
    """
    from later_reporting_dagster.cli.demo import run_demo

    if ui:
        # Fail on a port in use before the fetch, not after it.
        with prefix_errors_with(f"--ui-port {ui_port}"), socket.create_server(("127.0.0.1", ui_port)):
            pass
    yesterday = _yesterday()
    outcomes = run_demo(
        directory=directory.resolve(),
        start=yesterday - timedelta(days=days - 1),
        end=yesterday,
        instances=instance_count,
        posts_per_day=posts_per_day,
        seed=seed,
        api_version=API_VERSIONS[api_version],
        ui_port=ui_port if ui else None,
    )
    _report_failures(outcomes)


def _print_written(outcome: "RunOutcome") -> None:
    for written in outcome.written:
        click.echo(str(written))


def _command_line(arguments: str) -> str:
    """Return a command for the same definitions as this one."""
    module, name = click.get_current_context().find_root().obj
    options = [f" {option} {value}" for option, value in (("-m", module), ("--name", name)) if value]
    return f"later-reporting{''.join(options)} {arguments}"


def _report_failures(outcomes: "Sequence[RunOutcome]") -> None:
    """Print the failures of runs to standard error, and exit with 1 if there are any."""
    failures = [failure for outcome in outcomes for failure in sorted(outcome.failed.items())]
    for (asset, key), reason in failures[:MAX_LISTED_FAILURES]:
        click.echo(f"failed  {asset}  {one_line(key)}  {one_line(reason)}", err=True)
    if len(failures) > MAX_LISTED_FAILURES:
        click.echo(f"failed  … and {len(failures) - MAX_LISTED_FAILURES} more: see the run in the Dagster UI", err=True)
    for outcome in outcomes:
        if outcome.error:
            click.echo(f"Error: {one_line(outcome.error)}", err=True)
    if not all(outcome.succeeded for outcome in outcomes):
        raise SystemExit(1)


def _name_default_host(later: "LaterReportingResource", action: str) -> None:
    """Print the address of the API to standard error if no setting names it, before the first request.

    Prints nothing if there are no credentials, because without them no request is sent.
    """
    from later_reporting_dagster.defs.resource import DEFAULT_BASE_URL, InvalidSetting

    try:
        later.credentials()
    except InvalidSetting:
        return
    if later.base_url == DEFAULT_BASE_URL and not later.demo_mode and not os.environ.get("LATER_BASE_URL"):
        click.echo(f"{action} {DEFAULT_BASE_URL} (LATER_BASE_URL is not set)", err=True)


def _yesterday() -> date:
    """Return the newest day that is over in UTC."""
    return newest_day(datetime.now(UTC))
