"""The only folder that imports Dagster: resource, partitions, assets, checks, jobs, schedules and sensors."""

import warnings

import dagster as dg

# Known and accepted, once: the same news at each load of the code location would only hide others.
for _parameter in ("backfill_policy", "allow_nonexistent_upstream_partitions"):
    warnings.filterwarnings("ignore", message=f"Parameter `{_parameter}`", category=dg.BetaWarning)
