"""`later-reporting doctor`: is everything there that a run needs, and if not, what to do."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from later_reporting_dagster.cli.terminal_text import shown_id
from later_reporting_dagster.client import LaterClient, LaterError, RetryPolicy
from later_reporting_dagster.contract import Revision
from later_reporting_dagster.contract.days import newest_day
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import LoadSettings
from later_reporting_dagster.lake import LakeUnavailable, encode_instance_id

# Whoever asks a doctor wants to know now.
ONE_MORE_TRY = RetryPolicy(attempts=2)
# A token's own expiry is read against this machine's clock, with a margin of a minute.
TOLERATED_SKEW_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: what was looked at, whether it is well, and what to do if not."""

    subject: str
    well: bool
    text: str


async def examine(
    later: LaterReportingResource, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> list[Finding]:
    """Looks at settings, token, revision, scope, rate limit, clock and lake, in that order; costs three requests."""
    findings = [_found("settings", lambda: _settings(now()))]
    try:
        client = later.client(retry=ONE_MORE_TRY)
    except ValueError as error:
        findings.append(Finding("credentials", well=False, text=str(error)))
    else:
        async with client:
            findings += await _service(client, later=later, now=now)
    findings.append(_found("lake", lambda: _lake(later)))
    return findings


def _found(subject: str, look: Callable[[], str]) -> Finding:
    """Looks at something: what is returned is well, and what is raised is not."""
    try:
        return Finding(subject, well=True, text=look())
    except (ValueError, LakeUnavailable, click.ClickException) as error:
        return Finding(subject, well=False, text=str(error))


def _settings(now: datetime) -> str:
    settings = LoadSettings.from_environment()
    if settings.start_date > newest_day(now):
        raise ValueError(
            f"LATER_START_DATE is {settings.start_date}, which is not over yet (UTC): set it earlier, for until then"
            " there is nothing to fetch"
        )
    from later_reporting_dagster.cli.in_process_runs import (
        dagster_instance,  # loads the definitions, which need good settings
    )

    dagster_instance().dispose()
    return (
        f"partitions from {settings.start_date}, {settings.restate_days} days restated,"
        f" {len(settings.metrics)} metrics, DAGSTER_HOME {os.environ.get('DAGSTER_HOME')}"
    )


async def _service(client: LaterClient, *, later: LaterReportingResource, now: Callable[[], datetime]) -> list[Finding]:
    try:
        observed = await client.probe()
    except LaterError as error:
        return [Finding("token", well=False, text=str(error))]
    findings = [
        Finding("token", well=True, text=f"accepted by {later.base_url}"),
        _found("revision", lambda: _revision(observed.revision, wanted=later.revision())),
    ]
    try:
        reachable = await client.instances()
    except LaterError as error:
        return [*findings, Finding("scope", well=False, text=str(error))]
    findings.append(_found("scope", lambda: _scope(reachable, named=later.named_instances() or reachable)))
    stated = (
        "no limit stated" if observed.limit is None else f"{observed.limit} requests in {observed.window_seconds:g} s"
    )
    ours = f"asking {later.requests_per_minute} times a minute at most"
    findings.append(Finding("rate limit", well=True, text=f"{stated}; {ours}"))
    if observed.server_time is not None:
        skew = (now() - observed.server_time).total_seconds()
        well = abs(skew) <= TOLERATED_SKEW_SECONDS
        advice = "" if well else ": set this machine's clock, or tokens and due days are misjudged"
        findings.append(Finding("clock", well=well, text=f"{skew:+.0f} s against the server{advice}"))
    return findings


def _revision(spoken: Revision, *, wanted: Revision | None) -> str:
    if wanted not in (None, spoken):
        raise ValueError(f"the service speaks {spoken}, and LATER_API_REVISION is {wanted}: set it to auto")
    return f"{spoken}: {'numbered pages with totals' if spoken.has_totals else 'cursors without totals'}"


def _scope(reachable: tuple[str, ...], *, named: tuple[str, ...]) -> str:
    if not reachable:
        raise ValueError("the credentials reach no instance: have instances added to their scope")
    if beyond := [instance_id for instance_id in named if instance_id not in reachable]:
        shown = ", ".join(map(shown_id, beyond))
        raise ValueError(f"LATER_INSTANCE_IDS names {shown}, which the credentials do not reach")
    for instance_id in named:
        try:
            encode_instance_id(instance_id)
        except ValueError as error:
            raise ValueError(f"instance {instance_id!r} cannot be a partition: {error}") from error
    return f"{len(reachable)} instances within reach"


def _lake(later: LaterReportingResource) -> str:
    try:
        lake = later.lake()
        lake.check_writable()
    except LakeUnavailable as error:
        raise ValueError(f"LATER_LAKE_ROOT: {error}") from error
    return f"{lake.root} is writable"
