"""The retry policy of a host, or of the component: it retries what may pass, and a retry makes only what is left."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import dagster as dg
import pytest

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.client import RetryPolicy
from later_reporting_dagster.defs import resource
from later_reporting_dagster.defs.component_base import AssetEvent
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.lake import Lake, LakeUnavailable
from tests.conftest import FIRST_DAY, INSTANCE_IDS, Service, parameters, problem
from tests.defs.assets.test_posts import requested_pairs
from tests.defs.conftest import DAYS, INSTANCES_PATH, QUIET_LOGGING, Project, assert_success, failure

ASSET = "posts_published"
DOWN = INSTANCE_IDS[0]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests be sent again without waits, four times in all."""
    policy = partial(RetryPolicy, max_attempts=4, initial_backoff_seconds=0.0)
    monkeypatch.setattr(resource, "RetryPolicy", policy)


def run_with_retries(project: Project, asset: str) -> dg.ExecuteInProcessResult:
    """Run an asset in a job of a host, which retries each step once."""
    key = dg.AssetKey(["later", asset])
    job = dg.define_asset_job("with_retries", selection=[key], op_retry_policy=dg.RetryPolicy(max_retries=1))
    defs = dg.Definitions.merge(project.defs, dg.Definitions(jobs=[job]))
    return defs.resolve_job_def("with_retries").execute_in_process(
        instance=project.instance,
        tags=range_tags(DAYS[0], DAYS[-1]) if asset != "instances" else {},
        run_config=QUIET_LOGGING,
        raise_on_error=False,
    )


def retried(project: Project, result: dg.ExecuteInProcessResult) -> bool:
    return bool(project.events(result, dg.DagsterEventType.STEP_UP_FOR_RETRY))


def test_retry_fetches_what_an_outage_has_left(project: Project, service: Service) -> None:
    class Healing(LaterReportingComponent):
        def execute(self, context: dg.AssetExecutionContext, events: Iterator[AssetEvent]) -> Iterator[AssetEvent]:
            if context.retry_number:
                service.override = lambda request: None
                service.requests.clear()
            yield from events

    service.override = lambda request: problem(503) if DOWN in parameters(request).get("instanceIds", []) else None
    healing = Healing.from_environment(start_date=FIRST_DAY).build_definitions()
    result = run_with_retries(replace(project, defs=healing), ASSET)
    assert_success(result)
    assert requested_pairs(service) == Counter((day, DOWN) for day in DAYS)
    assert len(project.lake.partitions(ASSET)) == len(DAYS) * len(INSTANCE_IDS)
    events = project.events(result, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    newest = {each.check_name: each.passed for each in (event.asset_check_evaluation_data for event in events)}
    assert all(newest.values())


def test_refusal_is_not_retried(project: Project, service: Service) -> None:
    service.override = lambda request: problem(403) if DOWN in parameters(request).get("instanceIds", []) else None
    result = run_with_retries(project, ASSET)
    assert not result.success
    assert not retried(project, result)


def test_api_that_is_down_is_retried_and_warned_of_with_its_host(project: Project, service: Service) -> None:
    service.override = lambda request: problem(503) if request.url.path == INSTANCES_PATH else None
    result = run_with_retries(project, "instances")
    assert retried(project, result)
    assert failure(result)[0].endswith("try again later. To do without this list, set LATER_INSTANCE_IDS.")
    host = service.base_url.removeprefix("http://")
    warnings = [line for line in project.warnings(result) if line.startswith("Retrying")]
    assert len(warnings) == 2  # the third attempt of each execution; the fourth is the last
    assert all(f", after 3 attempts at {host}: instances" in line for line in warnings)


def test_lake_that_is_unavailable_is_retried(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert project.fetch("post_metrics_daily").success
    write, calls = Lake.write, list[object]()

    def fail_once(self: Lake, *args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise LakeUnavailable("the disk failed for a moment")
        return write(self, *args, **options)

    monkeypatch.setattr(Lake, "write", fail_once)
    result = run_with_retries(project, "organic_paid_daily")
    assert_success(result)
    assert retried(project, result)
