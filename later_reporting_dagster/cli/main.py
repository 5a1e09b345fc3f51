"""The commands of `later-reporting`. Usage errors are one line each; long commands show their progress."""

import asyncio
import json
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from later_reporting_dagster.cli.options import (
    Commands,
    SqlCommand,
    check_all,
    current_project,
    prefix_errors_with,
    renamed_to,
    table_name,
    user_errors,
    yesterday,
)
from later_reporting_dagster.cli.servers import sandbox, serve
from later_reporting_dagster.contract.safe_line import one_line
from later_reporting_dagster.lake.tables import (
    CAMPAIGNS_TABLE,
    INSTANCES_TABLE,
    OF_INSTANCES,
    PERIODS_TABLES,
    RAW_NAMES,
)
from later_reporting_dagster.rollups.rollup_tables import CADENCES, Cadence

if TYPE_CHECKING:
    from later_reporting_dagster.cli.project import Project
    from later_reporting_dagster.lake.quarantine import QuarantinedRow

# Commands import Dagster and DuckDB themselves: these take seconds, and `--help` and `sandbox` need neither.

QUARANTINED_ASSETS = (*RAW_NAMES, CAMPAIGNS_TABLE, *PERIODS_TABLES)
# Of `backfill`, and the assets that each applies to.
OPTIONS = {"instances": OF_INSTANCES, "only_missing": RAW_NAMES, "allow_row_loss": (*RAW_NAMES, *PERIODS_TABLES)}
DEFAULT_DAYS = 30
_DAY = click.DateTime(["%Y-%m-%d"])
_json_option = click.option(
    "--format", "format_", default="text", type=click.Choice(["text", "json"]), help="JSON is for monitoring."
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
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
    and DAGSTER_HOME, then check the API and the setup, and fetch all days since
    LATER_START_DATE:
      later-reporting probe
      later-reporting doctor
      later-reporting backfill
    """  # noqa: D301 - click reads the character
    context.obj = module, name


main.add_command(sandbox)
main.add_command(serve)


@main.command()
@_json_option
def instances(*, format_: str) -> None:
    """List instances with their newest, missing and stale days.

    Also shows when the API first and last listed each instance, and which are retired.
    Fetches the list of instances from the API, and writes nothing.
    """
    from later_reporting_dagster.cli.query_output import to_table
    from later_reporting_dagster.lake.coverage import intact_files
    from later_reporting_dagster.lake.tables import POSTS_NAMES
    from later_reporting_dagster.quality.instances import instances_table, load_instances
    from later_reporting_dagster.quality.late_posts import late_posts

    project = current_project()
    later, settings = project.later, project.settings
    lake, _ = check_all(later.lake, later.credentials)
    listed = asyncio.run(later.listed_instances())
    now = datetime.now(UTC)
    files = intact_files(lake, POSTS_NAMES)
    known = load_instances(lake, configured=later.configured_instances(), listed=listed, files=files)
    stale, days = late_posts(lake, days=settings.settled_days(now)).stale, settings.expected_days(now)
    rows = instances_table(lake, known, files=files, stale=stale, days=days, today=now.date())
    if format_ == "json":
        _print_json(rows.to_pylist())
    else:
        click.echo(to_table(rows), nl=False)


@main.command()
@click.argument("instance", metavar="ID")
@click.option("--undo", is_flag=True, help="Take a retired instance in again.")
def retire(*, instance: str, undo: bool) -> None:
    """Leave an instance out of rollups, the report and `serve`.

    For an instance that is gone for good, or that has another id now. Its files stay,
    and its missing days are no longer fetched. Until then, it stays in all numbers,
    even if the API no longer lists it. The daemon updates rollups by itself, unless
    automation is off.
    """
    from later_reporting_dagster.quality.instances import load_instances, stored_instances

    lake = current_project().later.lake()
    instances, dimension = load_instances(lake), stored_instances(lake)
    known = instances.known.union([] if dimension is None else dimension["instance_id"].to_pylist())
    retired = instances.retired
    candidates = retired if undo else instances.marks.in_numbers(known)
    if instance not in candidates:
        state = "not retired" if undo else "already retired" if instance in retired else "not in this lake"
        others = ", ".join(map(one_line, sorted(candidates))) or "none"
        raise click.UsageError(f"{one_line(instance)} is {state}; {'retired are' if undo else 'there are'}: {others}")
    if undo:
        lake.retired.remove(instance)
    else:
        lake.retired.add(instance)
    click.echo(f"{one_line(instance)} is {'no longer ' * undo}retired.")
    click.echo(f"Next: {_command_line('refresh')}")


@main.command()
@click.option("--asset", metavar="ASSET", help="Only this asset, such as later/posts_published. Default: everything.")
@click.option("--start", type=_DAY, metavar="YYYY-MM-DD", help="First day, UTC. Default: see above.")
@click.option("--end", type=_DAY, metavar="YYYY-MM-DD", help="Last day, UTC, inclusive. Default: yesterday.")
@click.option(
    "--instances", metavar="ID[,ID…]",
    help="Fetch only these instances. Default: LATER_INSTANCE_IDS, else all that the API lists.",
)  # fmt: skip
@click.option("--only-missing", is_flag=True, help="Fetch only files that are missing, or stale, in the lake.")
@click.option(
    "--allow-row-loss", is_flag=True,
    help="Also replace files that lose more rows than LATER_MAX_ROW_LOSS_PERCENT allows, or all values of their"
    " metrics. Use it if rows or values were really deleted.",
)  # fmt: skip
@click.option(
    "--accept-shrinking", is_flag=True, hidden=True, expose_value=False, callback=renamed_to("--allow-row-loss")
)
@click.option("--verbose", is_flag=True, help="Print the log of the run that fetches.")
@_json_option
def backfill(
    *,
    asset: str | None,
    start: datetime | None,
    end: datetime | None,
    instances: str | None,
    verbose: bool,
    format_: str,
    **flags: bool,
) -> None:
    """Fetch a range of days, roll them up, check them, and write the report.

    By default, the last 30 days, but none before LATER_START_DATE; into an empty lake,
    all days since then. Says first about how many minutes it takes. All days of a table
    are one run, recorded in DAGSTER_HOME. With --asset, materializes only this one: of
    a weekly or monthly asset, the weeks or months that contain these days.

    A daemon may run beside it: it fetches none of these days meanwhile, and may roll up
    the same ones, with the same result.

    Exits with 1 if anything failed, and lists the failures by day and instance;
    everything else is written.
    """
    from later_reporting_dagster.cli.in_process_runs import dagster_home, dagster_instance, materialize
    from later_reporting_dagster.cli.refresh import backfill_all, first_fetch_text, is_empty, probe
    from later_reporting_dagster.cli.run_report import (
        as_json,
        check_summary,
        latest_checks,
        printed,
        report_failures,
        warnings_of,
    )
    from later_reporting_dagster.defs.partitions import range_tags
    from later_reporting_dagster.defs.resource import parse_instance_ids
    from later_reporting_dagster.report.report_data import REPORT

    project = current_project()
    name = table_name(asset, project.settings.tables, project=project) if asset else None
    days = _days(name, start and start.date(), end and end.date(), project=project)
    with prefix_errors_with("--instances"):
        instance_ids = [] if instances is None else [*parse_instance_ids(instances)]
    config = _run_config([name] if name else project.settings.fetched_tables, {"instances": instance_ids, **flags})
    later = project.later
    if name is None or name in (*QUARANTINED_ASSETS, INSTANCES_TABLE):
        check_all(dagster_home, later.lake, later.credentials)
        asyncio.run(probe(later))  # before a run, which would show each day as failed
    else:
        check_all(dagster_home, later.lake)
    later.lake().check_writable()
    is_first = name is None and start is None and is_empty(later.lake())
    if is_first and days:
        days = project.settings.start_date, days[1]
    with dagster_instance() as instance:
        if name:
            tags = range_tags(*days, period=CADENCES.get(name, Cadence.DAY)) if days else None
            runs = iter([materialize(project, [name], instance=instance, tags=tags, config=config, verbose=verbose)])
        else:
            assert days is not None
            if is_first:
                click.echo(asyncio.run(first_fetch_text(later, *days, instance_ids=tuple(instance_ids))), err=True)
            runs = backfill_all(project, *days, instance=instance, config=config, verbose=verbose)
        outcomes = printed(runs) if format_ == "text" else [*runs]
    warnings = [*warnings_of(outcomes, None if flags["only_missing"] else days)]
    if format_ == "json":
        _print_json(as_json(outcomes, warnings=warnings))
    elif name is None:
        click.echo(check_summary(latest_checks(outcomes)))
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)
    report_failures(outcomes)
    if format_ == "text" and name in RAW_NAMES:
        click.echo(f"Next: {_command_line('refresh')}")
    elif format_ == "text" and name in (None, REPORT) and REPORT in project.settings.tables:
        click.echo(_how_to_open(project.report_location()))


def _days(asset: str | None, start: date | None, end: date | None, *, project: "Project") -> tuple[date, date] | None:
    """Return the days to materialize of an asset or, without its name, of all; None if it has no partitions."""
    if asset not in (None, *RAW_NAMES, *CADENCES):
        if start or end:
            raise click.UsageError(f"{asset} has no partitions: omit --start and --end")
        return None
    newest, first = yesterday(), project.settings.start_date
    if first > newest:
        raise click.UsageError(f"LATER_START_DATE {first} is not over yet: set it to {newest} or an earlier day (UTC)")
    for option, day in (("--start", start), ("--end", end)):
        if day and not first <= day <= newest:
            raise click.UsageError(
                f"{option} {day}: the days are those from {first} (LATER_START_DATE) to {newest}, the newest that is"
                " over (UTC)"
            )
    end = end or newest
    start = start or max(first, end - timedelta(days=DEFAULT_DAYS - 1))
    if end < start:
        raise click.UsageError(f"--end {end} is before --start {start}")
    return start, end


def _run_config(names: Sequence[str], options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the options that are set, by the asset that each applies to. It has to apply to one of them."""
    config: dict[str, dict[str, Any]] = {}
    for option, value in options.items():
        selected = [name for name in names if name in OPTIONS[option]] if value else []
        if value and not selected:
            flag = f"--{option.replace('_', '-')}"
            raise click.UsageError(f"{flag} applies to {', '.join(OPTIONS[option])}: omit it for {', '.join(names)}")
        for name in selected:
            config.setdefault(name, {})[option] = value
    return config


@main.command()
def refresh() -> None:
    """Bring rollups, report and lists up to date with the posts in the lake.

    Materializes what is missing, what other posts or code have made outdated, and the
    tables of instances and campaigns, which need the API. Fetches no posts. The daemon
    does the same by itself, unless automation is off.
    """
    from later_reporting_dagster.cli.in_process_runs import dagster_home, dagster_instance
    from later_reporting_dagster.cli.refresh import refresh_all
    from later_reporting_dagster.cli.run_report import printed, report_failures, warnings_of
    from later_reporting_dagster.defs.component_base import ASSET_NAMES
    from later_reporting_dagster.report.report_data import REPORT

    project = current_project()
    _, lake = check_all(dagster_home, project.later.lake)
    with dagster_instance() as instance:
        outcomes = printed(refresh_all(project, instance=instance))
    for warning in warnings_of(outcomes, None):
        click.echo(f"Warning: {warning}", err=True)
    if unknown := [name for name in lake.table_names() if name not in ASSET_NAMES]:
        click.echo(f"No table of this version: {', '.join(unknown)}. Nothing updates them; nothing was deleted.")
    report_failures(outcomes)
    click.echo("Rollups and the report are up to date.")
    if REPORT in project.settings.tables:
        click.echo(_how_to_open(project.report_location()))


def _how_to_open(page: str) -> str:
    # No browser opens the URL of an object store.
    return f"Next: {_command_line('page --output report.html')}" if "://" in page else f"Next: open {page}"


@main.command()
@click.option("--output", metavar="FILE", help="Copy the page to this file.")
@click.option(
    "--link-days", type=click.IntRange(1, 7), help="Print a link that works for so many days, without a login."
)
def page(*, output: str | None, link_days: int | None) -> None:
    """Share the page with the results: copy it from the lake, or print a link to it.

    A link needs a lake in an object store, and credentials that are valid as long.
    Without an option, prints where the page is.
    """
    from later_reporting_dagster.report.report_data import REPORT_PATH

    project = current_project()
    storage = project.later.lake().storage
    html = storage.read(REPORT_PATH)
    if html is None:
        raise click.ClickException(
            f"{project.report_location()} does not exist: `{_command_line('refresh')}` writes it"
        )
    if output is not None:
        with prefix_errors_with(f"--output {output}"):
            Path(output).write_bytes(html)
    if link_days is not None:
        with prefix_errors_with("--link-days"):
            click.echo(storage.signed_link(REPORT_PATH, seconds=link_days * 86_400, content_type="text/html"))
    if output is None and link_days is None:
        click.echo(project.report_location())


@main.command()
def redact() -> None:
    """Remove personal data of creators from the lake.

    Requires LATER_STORE_CREATOR_PROFILES=false. In every table and in the quarantine,
    names, handles, pictures and links of creators and URLs of posts become null or empty,
    and fields that the API reference does not name are removed, as is the report. Rows,
    ids and numbers in known fields stay. Run it while no run is in progress; after an
    interrupt, run it again.
    """
    from later_reporting_dagster.lake.coverage import record_files
    from later_reporting_dagster.lake.personal_data import remove_personal_data
    from later_reporting_dagster.report.report_data import REPORT_PATH

    project = current_project()
    if project.later.store_creator_profiles:
        raise click.UsageError(
            "LATER_STORE_CREATOR_PROFILES (store_creator_profiles) is true, so the next run would store them again: set"
            " it to false here and where the code location runs, start that again, and repeat this command"
        )
    lake, damaged = project.later.lake(), 0
    for name in dict.fromkeys([*lake.table_names(), *QUARANTINED_ASSETS]):
        removal = remove_personal_data(lake, name)
        if removal.files:
            click.echo(f"{name}: {removal.rewritten:,} of {removal.files:,} files rewritten")
        for problem in removal.damaged:
            click.echo(f"Not rewritten: {one_line(problem)}", err=True)
        damaged += len(removal.damaged)
    lake.storage.remove(REPORT_PATH)
    lake.remove_left_over_folders()
    # They have the hashes of what files had before, which these would contradict.
    for name in RAW_NAMES:
        for file in record_files(lake, name):
            lake.storage.remove(file.path)
    click.echo(
        "Not reached: records of earlier runs, a running `later-reporting serve`, backups, and copies elsewhere:"
        " see docs/privacy.md."
    )
    if damaged:
        raise click.ClickException(f"{damaged} files cannot be read: see above, and run this again")
    click.echo(f"Next: {_command_line('refresh')}")


@main.command()
@click.option("--asset", metavar="ASSET", help="Only the rows of this table. Default: all.")
@click.option("--raw", is_flag=True, help="Also print the JSON of each row.")
def quarantine(*, asset: str | None, raw: bool) -> None:
    """List quarantined rows by (day, instance) pair and reason.

    Reads only the lake. Once the API has corrected the rows, fetch their days again.
    """
    project = current_project()
    lake = project.later.lake()
    lines: list[str] = []
    for name in (table_name(asset, QUARANTINED_ASSETS, project=project),) if asset else QUARANTINED_ASSETS:
        groups: dict[tuple[str, str], list[QuarantinedRow]] = {}
        for row in lake.quarantine.rows(name):
            groups.setdefault((_origin(row), row.reason), []).append(row)
        for (origin, reason), rows in groups.items():
            lines.append(f"{name}  {origin}  {len(rows)}  {one_line(reason)}")
            lines += [f"    {one_line(row.raw)}" for row in rows if raw]
    click.echo("\n".join(lines) or "No rows in quarantine.")


def _origin(row: "QuarantinedRow") -> str:
    """Return the (day, instance) pair of a row, else the days of its query."""
    if row.partition is not None:
        return one_line(str(row.partition))
    if row.day_range is None:
        return "day or instance unknown"
    first, last = row.day_range
    days = str(first) if first == last else f"{first} to {last}"
    return f"day or instance unknown, from the query of {days}"


@main.command(cls=SqlCommand)
@click.argument("sql")
@click.option(
    "--format", "format_", default="table", type=click.Choice(["table", "csv", "json", "jsonl", "parquet"]),
    help="Output format. A table truncates long texts and many rows; all others are complete.",
)  # fmt: skip
@click.option("--output", metavar="FILE", help="Write to this file instead of standard output.")
@click.option(
    "--rows", default=100, type=click.IntRange(1, 10_000),
    help="Maximum number of rows in a table: of more, it has the first and the last. Another --format has all.",
)  # fmt: skip
@click.option("--memory-gb", default=2, type=click.IntRange(1, 1_000_000), help="Memory limit, in GB.")
def query(*, sql: str, format_: str, output: str | None, rows: int, memory_gb: int) -> None:
    """Query the lake in SQL, with DuckDB.

    SQL `-` reads the query from standard input.

    Each table is a view; its column `date` is the day of the row's partition.

    \b
      later-reporting query "show tables"
      later-reporting query "describe posts_published"
      later-reporting query "select platform, rate_ratio, same_post_rate_ratio
        from organic_paid_by_platform where time_window = '28d'"

    Queries only read.
    """  # noqa: D301 - click reads the character
    from later_reporting_dagster.cli.query_output import for_terminal, limited_memory, write_rows
    from later_reporting_dagster.defs.io_manager import all_tables
    from later_reporting_dagster.lake.sql_query import run_query

    width = _terminal_width() if output is None else None
    if format_ == "parquet" and width is not None:
        raise click.UsageError("--format parquet is binary: write it to a file with --output, or pipe it")
    with prefix_errors_with("SQL"):
        sql = sys.stdin.read() if sql == "-" else sql
        sql.encode()  # fails where the shell passed bytes that are not UTF-8
    project = current_project()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "result")
        with limited_memory(memory_gb):
            result = run_query(
                sql,
                project.later.lake(),
                all_tables(project.definitions, project.settings),
                memory_gb=memory_gb,
                labels=project.later.labels(),
                on_note=lambda text: click.echo(one_line(text), err=True),
            )
            write_rows(result, file, format_=format_, width=width, most=rows)
        if width is not None:
            click.echo(for_terminal(file.read_text("utf-8")), nl=False)
        elif output is None:
            with file.open("rb") as written:
                shutil.copyfileobj(written, sys.stdout.buffer)
        else:
            with prefix_errors_with(f"--output {output}"):
                shutil.copyfile(file, output)


@main.command()
def dbt_sources() -> None:
    """Print the tables as a sources.yml of dbt-duckdb.

    With descriptions, tests of the keys, freshness, and the asset keys that dagster-dbt
    reads. Run dbt with LATER_LAKE_ROOT.

    \b
      later-reporting dbt-sources > models/sources.yml
    """  # noqa: D301 - click reads the character
    from later_reporting_dagster.cli.dbt_sources import sources_yaml

    project = current_project()
    click.echo(sources_yaml(project.definitions, project.settings), nl=False)


@main.command()
@click.option("--strict", is_flag=True, help="Also exit with 1 if a check warns, as of an older day that is missing.")
@_json_option
def doctor(*, strict: bool, format_: str) -> None:
    """Check the setup and print a fix for each problem.

    Checks settings, variables, token, scope and lake, and says of each table what it
    lacks, with a few requests. Exits with 1 if a check failed, so that no run would work.
    """
    from later_reporting_dagster.cli.doctor import CheckResult, check_setup, result_lines

    try:
        project = current_project()
    except user_errors() as error:
        results = [CheckResult("settings", str(error), "FAIL")]
    else:
        results = asyncio.run(check_setup(project))
    if format_ == "json":
        _print_json(results)
    else:
        click.echo("\n".join(result_lines(results)))
    if any(result.mark == "FAIL" or (strict and result.mark == "WARN") for result in results):
        raise SystemExit(1)


@main.command()
@click.option("--output", metavar="FILE", help="Also write the result as JSON, without ids, names, links and secrets.")
def probe(*, output: str | None) -> None:
    """Check on your account whether the API is as this project reads it.

    Looks at one campaign and two days, with at most 35 requests, and writes nothing to
    the lake. Exits with 1 if numbers are wrong, and names their tables.
    """
    from later_reporting_dagster.cli.probe import lines_of, run_probe
    from later_reporting_dagster.probe.assumptions import judge, to_json

    project = current_project()
    check_all(project.later.credentials)
    sample = asyncio.run(run_probe(project))
    results = judge(sample)
    click.echo("\n".join(lines_of(sample, results)))
    if output is not None:
        with prefix_errors_with(f"--output {output}"):
            Path(output).write_text(json.dumps(to_json(sample, results), indent=2) + "\n")
    if affected := sorted({name for result in results for name in result.affected_tables}):
        raise click.ClickException(f"these tables have wrong numbers: {', '.join(affected)}. See docs/questions.md")


@main.command()
@click.option(
    "--directory", default=".later-demo", type=click.Path(file_okay=False, path_type=Path),
    help="Folder for all files of the demo; delete it at any time.",
)  # fmt: skip
@click.option("--days", default=100, type=click.IntRange(1, 365), help="Days up to yesterday.")
@click.option("--ui", is_flag=True, help="Then serve the Dagster UI, until Ctrl-C.")
@click.option("--ui-port", default=3000, type=click.IntRange(1, 65_535), help="Port of the Dagster UI.")
def demo(*, directory: Path, days: int, ui: bool, ui_port: int) -> None:
    """Fetch synthetic data, roll it up, check it, and print a summary.

    Needs no credentials. Runs all assets and checks in demo mode, in which the sandbox
    takes the place of the API. Prints how many checks passed, organic and paid results by
    platform, and what to type next.
    """
    from later_reporting_dagster.cli.demo import run_demo
    from later_reporting_dagster.cli.run_report import report_failures

    if ui:
        # Fail on a port in use before the fetch, not after it.
        with prefix_errors_with(f"--ui-port {ui_port}"), socket.create_server(("127.0.0.1", ui_port)):
            pass
    last_day = yesterday()
    start = last_day - timedelta(days=days - 1)
    outcomes = run_demo(directory=directory.resolve(), start=start, end=last_day, ui_port=ui_port if ui else None)
    report_failures(outcomes)


def _terminal_width() -> int | None:
    """Return the number of columns of the terminal that standard output is; None if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _print_json(value: object) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=1))


def _command_line(arguments: str) -> str:
    module, name = click.get_current_context().find_root().obj
    options = [f" {option} {value}" for option, value in (("-m", module), ("--name", name)) if value]
    return f"later-reporting{''.join(options)} {arguments}"


if __name__ == "__main__":
    main()
