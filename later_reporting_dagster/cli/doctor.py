"""The checks of `later-reporting doctor`."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

import click

from later_reporting_dagster.cli.in_process_runs import dagster_instance
from later_reporting_dagster.cli.options import user_errors
from later_reporting_dagster.cli.project import RETRY_ONCE, Project
from later_reporting_dagster.cli.servers import ID_VARIABLE, SECRET_VARIABLE, serve
from later_reporting_dagster.client import CredentialsRejected, LaterClient, LaterError
from later_reporting_dagster.client.client import Probe
from later_reporting_dagster.contract import PerformanceQuery
from later_reporting_dagster.contract.days import newest_day, utc_now
from later_reporting_dagster.contract.query import group_by_url_length
from later_reporting_dagster.contract.route import POSTS_PERFORMANCE
from later_reporting_dagster.contract.safe_line import one_line, safe_line
from later_reporting_dagster.defs.component import LaterReportingComponent
from later_reporting_dagster.defs.component_base import WITHOUT_VARIABLE, ComponentBase
from later_reporting_dagster.defs.resource import LaterReportingResource, variable_name
from later_reporting_dagster.lake import CAMPAIGN_PERIODS_TABLE, CAMPAIGNS_TABLE, LakeUnavailable
from later_reporting_dagster.lake.coverage import intact_files, stored_coverage
from later_reporting_dagster.lake.database import lacks_recorded_months
from later_reporting_dagster.lake.garbage_collection import paused_collection
from later_reporting_dagster.lake.sql_query import FETCH_PERIODS
from later_reporting_dagster.lake.tables import (
    COVERAGE_TABLE,
    INSTANCES_TABLE,
    OF_INSTANCES,
    PERIODS_TABLES,
    POSTS_PUBLISHED,
    RAW_NAMES,
    RAW_TABLES,
)
from later_reporting_dagster.probe.assumptions import unreadable_rows
from later_reporting_dagster.quality.instances import describe_not_expected, describe_unlisted, load_instances
from later_reporting_dagster.quality.late_posts import describe_stale, late_posts
from later_reporting_dagster.quality.missing_files import describe_missing, missing_files
from later_reporting_dagster.quality.requested_metrics import (
    days_without_metrics,
    describe_days_without,
    requested_days,
)

# The client renews a token up to a minute before it expires, by this machine's clock.
MAX_CLOCK_SKEW_SECONDS = 30


Mark = Literal["ok", "WARN", "FAIL"]
_COLORS: Mapping[Mark, str] = {"ok": "green", "WARN": "yellow", "FAIL": "red"}


def colored(mark: Mark) -> str:
    """Return a mark as it begins a line, in its color."""
    return click.style(f"{mark:<4}", fg=_COLORS[mark])


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check.

    `FAIL`: no run works. `WARN`: runs work, but worse than they could. In both cases, the message ends with the fix.
    """

    subject: str
    message: str
    mark: Mark = "ok"


def result_lines(results: Sequence[CheckResult]) -> list[str]:
    """Return the results as lines."""
    width = max(len(result.subject) for result in results)
    return [f"{colored(result.mark)}  {result.subject:<{width}} {one_line(result.message)}" for result in results]


async def check_setup(project: Project, *, now: Callable[[], datetime] = utc_now) -> list[CheckResult]:
    """Check what a run needs, with four requests, and one more for each further 100 instances.

    Checks that depend on a failed one are left out.
    """
    later = project.later
    results = [_evaluate("settings", lambda: _check_settings(project.settings, now()))]
    results += [*_check_variables(project), *_check_start_date(project.settings)]
    listed, of_api = await _check_api(later, now)
    results += [*of_api, _evaluate("lake", lambda: _check_lake(later))]
    if results[-1].mark == "ok":
        try:
            with paused_collection():
                results += _check_tables(project, now(), listed=listed)
        except user_errors() as error:
            results.append(CheckResult("tables", str(error), "WARN"))
    return results


def _evaluate(subject: str, check: Callable[[], str]) -> CheckResult:
    """Run a check. If it returns, it passed, and the value is the message; if it raises, the error is the message."""
    try:
        return CheckResult(subject, check())
    except user_errors() as error:
        return CheckResult(subject, str(error), "FAIL")


def _check_settings(settings: ComponentBase, now: datetime) -> str:
    if settings.start_date > newest_day(now):
        raise click.ClickException(
            f"LATER_START_DATE is {settings.start_date}, which is not over yet (UTC), so there is nothing to fetch:"
            " set it earlier"
        )
    with dagster_instance():
        pass
    return (
        f"partitions from {settings.start_date}, {settings.lookback_days} days restated,"
        f" {len(settings.metrics)} metrics, DAGSTER_HOME {os.environ.get('DAGSTER_HOME')}"
    )


def _check_start_date(settings: ComponentBase) -> list[CheckResult]:
    """Warn of a lake that begins years ago because nothing says when. An own project says it in its definitions."""
    default = ComponentBase.model_fields["start_date"].default
    if os.environ.get("LATER_START_DATE") or settings.start_date != default:
        return []
    problem = f"set LATER_START_DATE: without it, the lake begins on {default}"
    return [CheckResult("start date", problem, "WARN")]


def _check_variables(project: Project) -> list[CheckResult]:
    """Warn about each variable `LATER_…` that nothing reads, because its name may be misspelt."""
    fields = {*LaterReportingComponent.model_fields, *LaterReportingResource.model_fields} - WITHOUT_VARIABLE
    read = {f"LATER_{field.upper()}" for field in fields}
    read |= {ID_VARIABLE, SECRET_VARIABLE, *(f"LATER_SERVE_{str(each.name).upper()}" for each in serve.params)}
    for resource in (project.definitions.resources or {}).values():
        if isinstance(resource, LaterReportingResource):
            read |= {str(variable_name(getattr(resource, field))) for field in type(resource).model_fields}
    unknown = sorted(name for name in os.environ if name.startswith("LATER_") and name not in read)
    return [CheckResult("variables", f"nothing reads {', '.join(unknown)}", "WARN")] if unknown else []


async def _check_api(
    later: LaterReportingResource, now: Callable[[], datetime]
) -> tuple[frozenset[str] | None, list[CheckResult]]:
    """Check the token, its scope and a page of posts; also return the instances that the API lists, if it tells."""
    listed: frozenset[str] | None = None
    results: list[CheckResult] = []
    subject = "token"
    try:
        async with later.client(retry=RETRY_ONCE) as client:
            observed = await _observe(client, later)
            results.append(_evaluate(subject, lambda: _check_response(observed, later, now())))
            subject = "scope"
            listed = await later.fetch_list(client)
            instances = later.configured_instances()
            with suppress(*user_errors()):  # those of the lake, which has a check of its own
                instances = tuple(filter(later.lake().retired.marks().is_in_numbers, instances))
            results.append(_check_scope(listed, instances))
            subject = "posts"
            results.append(CheckResult(subject, await _check_posts(client, instances, newest_day(now()))))
    except user_errors() as error:
        results.append(CheckResult(subject, str(error), "FAIL"))
    return listed, results


async def _observe(client: LaterClient, later: LaterReportingResource) -> Probe:
    try:
        return await client.probe()
    except CredentialsRejected:
        raise
    except LaterError as error:
        raise click.ClickException(f"{error} Check LATER_BASE_URL, which is {later.api_url()}.") from error


def _check_response(observed: Probe, later: LaterReportingResource, now: datetime) -> str:
    expected, detected = later.selected_api_version(), observed.api_version
    if expected not in (None, detected):
        raise click.ClickException(
            f"the API responds in version {detected}, but LATER_API_VERSION is {expected}: set it to auto"
        )
    skew_seconds = (now - observed.server_time).total_seconds() if observed.server_time else 0
    if abs(skew_seconds) > MAX_CLOCK_SKEW_SECONDS:
        raise click.ClickException(
            f"{skew_seconds:+.0f} s from the server's clock: set this machine's clock, which decides when tokens expire"
            " and days are due"
        )
    return f"accepted by {later.api_url()}, which responds in version {detected}"


async def _check_posts(client: LaterClient, instances: tuple[str, ...], newest: date) -> str:
    """Fetch a page of the posts of 30 days, and read it."""
    instance_ids = group_by_url_length(instances)[0]
    query = PerformanceQuery(start_date=newest - timedelta(days=29), end_date=newest, instance_ids=instance_ids)
    page = await client.fetch_page(POSTS_PERFORMANCE, query)
    unreadable, reasons = unreadable_rows([page])
    if unreadable:
        problem = safe_line("; ".join(reasons))
        raise click.ClickException(f"{unreadable} of {page.total_items} rows cannot be read: {problem}")
    return f"{page.total_items} rows of the last 30 days can be read"


def _check_scope(listed: frozenset[str] | None, required: Sequence[str]) -> CheckResult:
    if listed is None:
        text = "the API does not say which instances it lists: only what it answers shows whether they are accessible"
        return CheckResult("scope", text, "WARN")
    if not listed:
        raise click.ClickException(
            "the credentials have access to no instance: ask Later to add instances to their scope"
        )
    if inaccessible := [instance_id for instance_id in required if instance_id not in listed]:
        # With escapes, so that the message shows which characters an id really has.
        ids = ", ".join(each if each.isprintable() else ascii(each) for each in inaccessible)
        raise click.ClickException(
            f"LATER_INSTANCE_IDS names {ids}, which the credentials cannot access: remove it, or request access"
        )
    return CheckResult("scope", f"{len(listed)} instances accessible")


def _check_lake(later: LaterReportingResource) -> str:
    try:
        lake = later.lake()
        lake.check_writable()
    except LakeUnavailable as error:
        raise click.ClickException(f"LATER_LAKE_ROOT: {error}") from error
    compares = "" if lake.storage.compares else ". It does not compare versions: let only one run at a time write it"
    return f"{lake.root} is writable{compares}"


def _check_tables(project: Project, now: datetime, *, listed: frozenset[str] | None) -> Iterator[CheckResult]:
    """Yield what each table lacks, and for which instances."""
    settings, lake = project.settings, project.later.lake()
    stored = stored_coverage(lake)
    files = intact_files(lake, RAW_NAMES, stored=stored)
    if not any(files[name] for name in RAW_NAMES if name in settings.tables):
        yield CheckResult("tables", "no files yet: fetch some with `later-reporting backfill`")
        return
    configured = project.later.configured_instances()
    known = load_instances(lake, configured=configured, listed=listed, files=files)
    # Of one that LATER_INSTANCE_IDS names, the check of the scope has said it.
    unlisted = known.unlisted - known.configured
    if problem := describe_not_expected(known, files=files) or describe_unlisted(unlisted):
        yield CheckResult("instances", problem, "WARN")
    instances, days = sorted(known.expected), settings.expected_days(now)
    all_stale = late_posts(lake, days=settings.settled_days(now), coverage=stored).stale
    requested = requested_days(lake, coverage=stored)
    for name, present in files.items():
        if name not in settings.tables:
            continue
        key = settings.asset_key(name).to_user_string()
        if not RAW_TABLES[name].is_expected(files=present):
            yield CheckResult(key, "no files: the next run fetches them, unless the API refuses their route")
            continue
        stale = all_stale if name == POSTS_PUBLISHED.name else {}
        missing = missing_files(name, days=days, instances=instances, present=present)
        lacks = describe_missing(missing, instances=len(instances)), describe_stale(stale)
        can_fetch = {file.day for file in (*missing, *stale) if file.instance_id not in unlisted}
        of_table = [each for each in requested if each.table_name == name]
        without = days_without_metrics(of_table, settings.metrics_of(RAW_TABLES[name]), days={*days})
        problems = [describe_days_without(without)]
        if can_fetch:
            fix = f"run `later-reporting backfill --only-missing --start {min(can_fetch)} --end {max(can_fetch)}`"
            if name in OF_INSTANCES:
                fix += f", or turn on the sensor {settings.name}_missing_files, which fetches them"
        else:
            fix = "not fetched, because the API no longer lists these instances"
        if any(lacks):
            problems.insert(0, f"{'; '.join(filter(None, lacks))}: {fix}")
        if any(problems):
            yield CheckResult(key, "; ".join(filter(None, problems)), "WARN")
        else:
            yield CheckResult(key, f"complete from {settings.start_date} on")
    for name in (INSTANCES_TABLE, CAMPAIGNS_TABLE, *PERIODS_TABLES, COVERAGE_TABLE):
        if name in settings.tables:
            key = settings.asset_key(name).to_user_string()
            if (metadata := lake.read_metadata(name)) is None:
                yield CheckResult(key, "missing: run `later-reporting backfill`", "WARN")
            elif name == CAMPAIGN_PERIODS_TABLE and lacks_recorded_months(lake):
                problem = f"fetched by an earlier release, without calendar months: run `{FETCH_PERIODS}`"
                yield CheckResult(key, problem, "WARN")
            else:
                yield CheckResult(key, f"{metadata.rows:,} rows")
