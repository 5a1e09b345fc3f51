"""Asset steps: what this project materializes in one step, before a component turns it into a Dagster definition."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.resource import LaterReportingResource

# Called with the step's context and the resource of the component.
RunStep = Callable[[AssetExecutionContext, LaterReportingResource], Iterable[dg.MaterializeResult[Any]]]


@dataclass(frozen=True, kw_only=True)
class AssetStep:
    """One step of a run: the assets that it materializes, and how.

    Attributes:
        name: the name of the step, which is also its key in run config.
        specs: the assets. If there are several, any subset can be materialized.
        run: materializes the selected assets. It logs its materializations itself, or yields them.
        config: the class of the step's run config; None if it has none.
        backfill_policy: how a backfill is divided into runs.
        pool: the pool that limits how many of these steps run at once.
    """

    name: str
    specs: Sequence[dg.AssetSpec]
    run: RunStep
    config: type[dg.Config] | None = None
    backfill_policy: dg.BackfillPolicy | None = None
    pool: str | None = None
