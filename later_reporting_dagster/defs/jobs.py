"""Jobs: what the schedule and the sensor launch, and all checks together."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from later_reporting_dagster.ingest.source import SOURCES

POSTS_JOB = "later_posts"
CHECKS_JOB = "later_checks"

# A run is one or two steps that wait for the network: a process for each would only cost its start. Without the steps
# of the checks, which Dagster would plan for every partition and then skip: the assets log their own results.
posts_job = dg.define_asset_job(
    POSTS_JOB,
    selection=dg.AssetSelection.assets(*(dg.AssetKey(["later", source.asset]) for source in SOURCES)).without_checks(),
    executor_def=dg.in_process_executor,
    description="Fetches both raw tables for a range of days.",
)


def checks_job(keys: Sequence[dg.AssetKey]) -> Any:
    """Return the job that evaluates all checks of these assets over all that lies in the lake."""
    return dg.define_asset_job(
        CHECKS_JOB,
        selection=dg.AssetSelection.checks_for_assets(*keys),
        executor_def=dg.in_process_executor,
        description="Evaluates all asset checks over all that lies in the lake.",
    )


def posts_config(**config: Any) -> dict[str, Any]:
    """Return the run config of `later_posts` that gives both raw assets these fields of `PostsConfig`."""
    return {"ops": {f"later__{source.asset}": {"config": config} for source in SOURCES}}
