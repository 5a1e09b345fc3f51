"""The only folder that imports Dagster: resource, partitions, assets, checks, jobs, schedules and sensors."""

import warnings

import dagster as dg

# Known and accepted, once: the same news at each load of the code location would only hide others.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy`", category=dg.BetaWarning)
