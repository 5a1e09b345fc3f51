"""`later-reporting probe`: the requests, and the lines that it prints."""

from collections.abc import Iterator, Mapping, Sequence

import click

from later_reporting_dagster.cli.project import RETRY_ONCE, Project
from later_reporting_dagster.contract.days import newest_day, utc_now
from later_reporting_dagster.contract.query import group_by_url_length
from later_reporting_dagster.contract.safe_line import one_line, safe_line
from later_reporting_dagster.probe.assumptions import Result, Verdict
from later_reporting_dagster.probe.sample import MAX_REQUESTS, Sample, fetch_sample

_COLORS: Mapping[Verdict, str] = {"holds": "green", "does not hold": "red", "not testable": "yellow"}


async def run_probe(project: Project) -> Sample:
    settings, later = project.settings, project.later
    async with later.client(retry=RETRY_ONCE, max_requests=MAX_REQUESTS) as client:
        return await fetch_sample(
            client,
            newest=newest_day(utc_now()),
            metrics=settings.metrics,
            campaign_metrics=settings.campaign_metrics,
            instance_ids=group_by_url_length(later.configured_instances())[0],
        )


def lines_of(sample: Sample, results: Sequence[Result]) -> Iterator[str]:
    days = " and ".join(map(str, sample.days or ()))
    looked_at = f"campaign {sample.campaign_id} on {days}" if days else "no campaign"
    metrics = f"{len(sample.metrics)} metrics of posts, {len(sample.campaign_metrics)} of campaigns"
    yield f"API version {sample.service.api_version}, {sample.requests} requests, {metrics}, {looked_at}"
    for result in results:
        numbers = [f"{name}: {number:,.12g}" for name, number in result.numbers.items()]
        details = f": {safe_line(', '.join(result.details))}" if result.details else ""
        yield f"{click.style(f'{result.verdict:<13}', fg=_COLORS[result.verdict])}  {result.question}"
        yield f"{'':<15}{'; '.join([result.text + details, *numbers])}"
    for problem in dict.fromkeys(sample.problems):
        yield f"A request failed: {one_line(problem)}"
