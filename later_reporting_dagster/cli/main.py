"""The commands. A user's mistake is one line that says what to do; what takes a while shows how far it is."""

import asyncio
import math
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from later_reporting_dagster.cli.terminal_text import in_one_line
from later_reporting_dagster.contract import REVISIONS
from later_reporting_dagster.contract.days import newest_day
from later_reporting_dagster.ingest.raw_tables import SOURCES
from later_reporting_dagster.sandbox import DEFAULT_PORT

if TYPE_CHECKING:
    from later_reporting_dagster.cli.in_process_runs import RunOutcome
    from later_reporting_dagster.defs.resource import LaterReportingResource

# Dagster is imported inside the commands that need it: `--help` and `sandbox` answer at once.

RAW_ASSETS = tuple(source.asset for source in SOURCES)
ROLLUP_ASSETS = ("organic_paid_daily", "organic_paid_by_publish_day")
SPAN_ASSETS = ("organic_paid_weekly", "organic_paid_monthly")
SHOWN_FAILURES = 50

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class _Day(click.ParamType[date]):
    name = "YYYY-MM-DD"

    def convert(self, value: str | date, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a day as YYYY-MM-DD", param, ctx)


class _Seconds(click.FloatRange):
    """A number of seconds: click takes `nan` and `inf` for numbers within any range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


class _Asset(click.Choice[str]):
    """An asset by its key, `later/posts_published`, or by its name alone."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(value.removeprefix("later/"), param, ctx)


def _plain_errors(command: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Turns what a user can mend into one line."""

    @wraps(command)
    def guarded(*arguments: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
        from later_reporting_dagster.client import LaterError
        from later_reporting_dagster.lake import LakeUnavailable

        try:
            return command(*arguments, **options)
        except (LaterError, LakeUnavailable, ValueError) as error:
            raise click.ClickException(in_one_line(str(error))) from error

    return guarded


def _listed(kind: str) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], tuple[str, ...]]:
    """Makes `list` as an option's value print what there is, as FAULTS or HOSTILE, and end."""

    def list_or_take(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
        if "list" in given:
            from later_reporting_dagster import sandbox as room

            for entry in getattr(room, kind).values():
                click.echo(f"{entry.name:<25} {entry.description}")
            context.exit()
        return given

    return list_or_take


@contextmanager
def _blaming(flags: str) -> Iterator[None]:
    """Names the flags that a wrong value came from."""
    try:
        yield
    except BrokenPipeError:  # nobody reads what is said any more, which is no flag's fault
        raise
    except (ValueError, OSError) as error:
        raise click.UsageError(f"{flags}: {error}") from error


_revision = click.option(
    "--revision", default="paged", show_default=True, type=click.Choice(list(REVISIONS)),
    help="Numbered pages, or cursors and metrics by name.",
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="later-reporting-dagster")
def main() -> None:
    """Later post performance in your lake, organic against paid.

    \b
    Try it without credentials:   later-reporting demo
    Point it at the real API:     set LATER_CLIENT_ID, LATER_CLIENT_SECRET, LATER_LAKE_ROOT
                                  and DAGSTER_HOME, then: later-reporting doctor
    """  # noqa: D301 - click reads the character


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(0, 65_535),
    help="Port to listen on; 0 takes a free one.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Another seed is another world.")
@click.option("--instances", default=8, show_default=True, type=click.IntRange(1), help="How many instances.")
@click.option(
    "--posts-per-day", default=20, show_default=True, type=click.IntRange(0),
    help="Posts a day and instance, on average.",
)  # fmt: skip
@click.option("--latency", default=0.0, show_default=True, type=_Seconds(0), help="Seconds that each answer takes.")
@click.option(
    "--requests-per-window", default=120, show_default=True, type=click.IntRange(1),
    help="Requests allowed in a window.",
)  # fmt: skip
@click.option(
    "--window", default=60.0, show_default=True, type=_Seconds(0, min_open=True), help="The window's seconds."
)
@click.option(
    "--token-lifetime", default=43_200, show_default=True, type=click.IntRange(1),
    help="Seconds for which a token is accepted.",
)  # fmt: skip
@_revision
@click.option(
    "--fault", "faults", multiple=True, metavar="NAME:PROBABILITY", callback=_listed("FAULTS"),
    help="Do this to so many of the requests, as http-500:0.03; repeatable. `--fault list` says what there is.",
)  # fmt: skip
@click.option(
    "--hostile", multiple=True, metavar="NAME:SHARE", callback=_listed("HOSTILE"),
    help="Alter so many of the rows, as nan:0.01; repeatable. `--hostile list` says what there is.",
)  # fmt: skip
@click.option("--hostile-instances", is_flag=True, help="Have instances whose ids break paths and query strings too.")
@click.option("--fault-seed", default=0, show_default=True, help="Another seed hits other requests and rows.")
@_plain_errors
def sandbox(
    host: str,
    port: int,
    seed: int,
    instances: int,
    posts_per_day: int,
    latency: float,
    requests_per_window: int,
    window: float,
    token_lifetime: int,
    revision: str,
    faults: tuple[str, ...],
    hostile: tuple[str, ...],
    hostile_instances: bool,
    fault_seed: int,
) -> None:
    """Serve the documented endpoint over synthetic data, on this machine.

    Beside its numbered instances it has the two that the document's own example asks for. With faults it says at its
    end how many there were; a request with the header `X-Sandbox-Faults: off` has none.
    """
    from later_reporting_dagster import sandbox as room
    from later_reporting_dagster.client.base_url import is_loopback

    with _blaming("--fault"):
        fault_chances = room.read_chances(faults, known=room.FAULTS, what="fault")
    with _blaming("--hostile"):
        hostile_shares = room.read_chances(hostile, known=room.HOSTILE, what="hostile row")
    if not host:
        raise click.UsageError("--host is empty, which would mean all addresses: leave it out for this machine alone")
    click.echo(room.BANNER)
    options = room.SandboxOptions(
        latency_seconds=latency,
        requests_per_window=requests_per_window,
        window_seconds=window,
        token_lifetime_seconds=token_lifetime,
        revision=REVISIONS[revision],
    )
    yesterday = _yesterday()
    world = room.World(
        first_day=room.two_years_before(yesterday),
        last_day=yesterday,
        seed=seed,
        instances=instances,
        posts_per_day=posts_per_day,
        further_instances=room.EXAMPLE_INSTANCE_IDS + (room.HOSTILE_INSTANCE_IDS if hostile_instances else ()),
    )

    def tell(base_url: str) -> None:
        click.echo(f"export LATER_BASE_URL={base_url}")
        click.echo(f"export LATER_CLIENT_ID={options.client_id}")
        click.echo(f"export LATER_CLIENT_SECRET={options.client_secret}")
        if not is_loopback(host):
            click.echo("Off this machine the client takes it by https only: put a proxy with TLS before it.", err=True)

    faulty = room.FaultySandbox(world, faults=fault_chances, hostile=hostile_shares, seed=fault_seed, options=options)
    with _blaming("--host, --port"):
        room.serve(faulty, host=host, port=port, on_ready=tell)
    for name, count in [*faulty.injected.items(), *((name, len(keys)) for name, keys in faulty.altered.items())]:
        click.echo(f"{name:<25} {count}")


@main.command()
@_plain_errors
def instances() -> None:
    """List the instances: when the API listed them, and what the lake holds of each."""
    from later_reporting_dagster.cli.query_output import table_lines
    from later_reporting_dagster.contract.days import restated_days
    from later_reporting_dagster.defs.settings import LoadSettings
    from later_reporting_dagster.ingest.instance_dimension import refreshed_instances

    later, settings = _resource(), LoadSettings.from_environment()
    listed = asyncio.run(later.listed_instances())
    window = restated_days(_yesterday(), start_date=settings.start_date, restate_days=settings.restate_days)
    rows = refreshed_instances(later.lake(), listed, window=window, today=datetime.now(UTC).date())
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in table_lines(rows, width=width):
        click.echo(line)


@main.command()
@click.option(
    "--asset", required=True, type=_Asset([*RAW_ASSETS, *ROLLUP_ASSETS, *SPAN_ASSETS]), help="As later/posts_published."
)
@click.option("--start", required=True, type=_Day(), help="First day, UTC.")
@click.option("--end", required=True, type=_Day(), help="Last day, UTC, inclusive.")
@click.option(
    "--instances", "wanted", multiple=True, metavar="ID[,ID…]",
    help="Fetch only these; by default those of LATER_INSTANCE_IDS, else all that the API lists.",
)  # fmt: skip
@click.option("--only-missing", is_flag=True, help="Fetch only the (day, instance) pairs that have no file.")
@click.option("--accept-shrinking", is_flag=True, help="Replace files that shrink too: posts have really been deleted.")
@click.option("--verbose", is_flag=True, help="Print the run's log too.")
@_plain_errors
def backfill(
    asset: str,
    start: date,
    end: date,
    wanted: tuple[str, ...],
    only_missing: bool,
    accept_shrinking: bool,
    verbose: bool,
) -> None:
    """Materialize a range of days as one run; of a weekly or monthly asset, the weeks or months of these days.

    Exit code 1 lists what failed, by day and instance; everything else is written.
    """
    from later_reporting_dagster.cli import in_process_runs
    from later_reporting_dagster.cli.progress_bar import progress_bar
    from later_reporting_dagster.defs.partitions import range_tags
    from later_reporting_dagster.defs.settings import LoadSettings
    from later_reporting_dagster.lake import encode_instance_id
    from later_reporting_dagster.rollups.periods import Span
    from later_reporting_dagster.rollups.rollup_tables import TABLES

    _check_days(start, end, first=LoadSettings.from_environment().start_date)
    named = [name.strip() for each in wanted for name in each.split(",") if name.strip()]
    if wanted and not named:
        raise click.UsageError("--instances names none: leave it out to mean all")
    with _blaming("--instances"):
        for name in named:
            encode_instance_id(name)
    config = {"instances": named, "only_missing": only_missing, "accept_shrinking": accept_shrinking}
    span = Span.DAY
    if asset not in RAW_ASSETS:
        if any(config.values()):
            raise click.UsageError(
                f"--instances, --only-missing and --accept-shrinking are for what is fetched: leave them out for"
                f" later/{asset}"
            )
        config, span = {}, next(table.span for table in TABLES if table.name == asset)
    with in_process_runs.dagster_instance() as instance, progress_bar() as show:
        outcome = in_process_runs.materialize(
            [asset],
            instance=instance,
            tags=range_tags(start, end, span=span),
            config=config,
            on_progress=show,
            verbose=verbose,
        )
    _report([outcome])


@main.command()
@click.option("--asset", "assets", multiple=True, type=_Asset(RAW_ASSETS), help="Only this table; both when left out.")
@_plain_errors
def compact(assets: tuple[str, ...]) -> None:
    """Copy months that are no longer restated to one file per instance, which reads them much faster.

    The partitions stay as they are. Run it again at any time: it does what is new, and leaves the rest alone.
    """
    from later_reporting_dagster.defs.settings import LoadSettings
    from later_reporting_dagster.lake.table_compaction import compact_table

    lake = _resource().lake()
    restate_days = LoadSettings.from_environment().restate_days
    for asset in assets or RAW_ASSETS:
        done = compact_table(lake, asset, restate_days=restate_days, now=datetime.now(UTC))
        click.echo(f"{asset}: {done}")


@main.command()
@click.option("--asset", "assets", multiple=True, type=_Asset(RAW_ASSETS), help="Only this table; both when left out.")
@click.option("--raw", is_flag=True, help="Show each row as it came, too.")
@_plain_errors
def quarantine(assets: tuple[str, ...], raw: bool) -> None:
    """List the rows that cannot be true, by partition and reason. No request is made."""
    from later_reporting_dagster.cli.quarantine_listing import quarantine_lines

    lake = _resource().lake()
    lines = [line for asset in assets or RAW_ASSETS for line in quarantine_lines(lake, asset, raw=raw)]
    click.echo("\n".join(lines) or "No row lies in quarantine.")


@main.command()
@click.argument("sql")
@click.option(
    "--format", "as_", default="table", show_default=True,
    type=click.Choice(["table", "csv", "json", "jsonl", "parquet"]),
    help="A table is for people; the others have all rows, and all of each text.",
)  # fmt: skip
@click.option("--output", metavar="FILE", help="A file to write instead of printing.")
@click.option("--rows", default=100, show_default=True, type=click.IntRange(1), help="How many rows a table shows.")
@click.option("--memory-gb", default=2, show_default=True, type=click.IntRange(1), help="GB of memory that it may use.")
@_plain_errors
def query(sql: str, as_: str, output: str | None, rows: int, memory_gb: int) -> None:
    """Ask the lake by SQL, through DuckDB: every table is a view, with the day of each row in `date`.

    \b
      later-reporting query "show tables"
      later-reporting query "describe posts_published"
      later-reporting query "select platform, sum(impressions) from posts_published group by platform"

    SQL - reads it from standard input. The lake is only read. Null is `null`, and `""` an empty text.
    """  # noqa: D301 - click reads the character
    from later_reporting_dagster.cli.query_output import FORMATS, table_lines
    from later_reporting_dagster.definitions import defs
    from later_reporting_dagster.defs.lake_tables import readable
    from later_reporting_dagster.reading import answer

    if as_ == "parquet" and output is None and sys.stdout.isatty():
        raise click.UsageError("--format parquet is no text: name a file by --output, or pipe it")
    answered = answer(
        sys.stdin.read() if sql == "-" else sql,
        _resource().lake(),
        readable(defs),
        memory_gb=memory_gb,
        note=lambda text: click.echo(in_one_line(text), err=True),
    )
    if as_ != "table":
        data = FORMATS[as_](answered)
    else:
        width = shutil.get_terminal_size().columns if output is None and sys.stdout.isatty() else None
        data = "".join(f"{line}\n" for line in table_lines(answered.slice(0, rows), width=width)).encode()
    if output is None:
        click.echo(data, nl=False)
    else:
        with _blaming(f"--output {output}"):
            Path(output).write_bytes(data)
    if as_ == "table" and answered.num_rows > rows:
        click.echo(f"… {answered.num_rows - rows:,} more rows: --rows shows more, and other formats have all", err=True)


@main.command()
@_plain_errors
def doctor() -> None:
    """Check settings, token, scope, rate limit, clock and lake, each with what to do."""
    from later_reporting_dagster.cli.doctor import examine

    findings = asyncio.run(examine(_resource()))
    for finding in findings:
        mark = click.style("ok  ", fg="green") if finding.well else click.style("FAIL", fg="red")
        click.echo(f"{mark}  {finding.subject:<12} {in_one_line(finding.text)}")
    if not all(finding.well for finding in findings):
        raise SystemExit(1)


@main.command()
@click.option(
    "--directory", default=".later-demo", show_default=True, type=click.Path(file_okay=False, path_type=Path),
    help="Where everything goes; it can be deleted at any time.",
)  # fmt: skip
@click.option("--days", default=14, show_default=True, type=click.IntRange(1, 365), help="Days up to yesterday.")
@click.option("--instances", "instance_count", default=4, show_default=True, type=click.IntRange(1), help="Instances.")
@click.option("--posts-per-day", default=8, show_default=True, type=click.IntRange(1), help="Posts a day and instance.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Another seed is another world.")
@_revision
@click.option("--ui", is_flag=True, help="Then open the Dagster UI on it, with the sandbox behind it.")
@click.option(
    "--ui-port", default=3000, show_default=True, type=click.IntRange(1, 65_535), help="Port of the Dagster UI."
)
@_plain_errors
def demo(
    directory: Path,
    days: int,
    instance_count: int,
    posts_per_day: int,
    seed: int,
    revision: str,
    ui: bool,
    ui_port: int,
) -> None:
    """See all of it on synthetic data: fetch two weeks, roll them up, check them, compare organic with paid."""
    from later_reporting_dagster.cli.demo import run_demo

    if ui:
        with _blaming(f"--ui-port {ui_port}"), socket.create_server(("127.0.0.1", ui_port)):
            pass  # it is free: two weeks are not fetched first to find out that it is not
    yesterday = _yesterday()
    outcomes = run_demo(
        directory=directory.resolve(),
        start=yesterday - timedelta(days=days - 1),
        end=yesterday,
        instances=instance_count,
        posts_per_day=posts_per_day,
        seed=seed,
        revision=REVISIONS[revision],
        ui_port=ui_port if ui else None,
    )
    _report(outcomes)


def _report(outcomes: "Sequence[RunOutcome]") -> None:
    """Print what failed, and exit with 1 if anything did."""
    failed = [line for outcome in outcomes for line in sorted(outcome.failed.items())]
    for (asset, key), reason in failed[:SHOWN_FAILURES]:
        click.echo(f"failed  {asset}  {in_one_line(key)}  {in_one_line(reason)}", err=True)
    if len(failed) > SHOWN_FAILURES:
        click.echo(f"failed  … and {len(failed) - SHOWN_FAILURES} more: see the run in the UI", err=True)
    for outcome in outcomes:
        if outcome.error:
            click.echo(f"Error: {in_one_line(outcome.error)}", err=True)
    if not all(outcome.succeeded for outcome in outcomes):
        raise SystemExit(1)


def _check_days(start: date, end: date, *, first: date) -> None:
    if end < start:
        raise click.UsageError(f"--end {end} is before --start {start}")
    if start < first:
        raise click.UsageError(
            f"--start {start} is before the first partition: set LATER_START_DATE, now {first}, earlier"
        )
    if end > _yesterday():
        raise click.UsageError(f"--end {end} is not over yet: the newest partition is {_yesterday()} (UTC)")


def _resource() -> "LaterReportingResource":
    from later_reporting_dagster.defs.resource import LaterReportingResource

    later: LaterReportingResource = LaterReportingResource.from_environment().process_config_and_initialize()
    return later


def _yesterday() -> date:
    return newest_day(datetime.now(UTC))
