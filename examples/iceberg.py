"""A downstream code location that copies each table of the lake into an Apache Iceberg table.

    pip install 'pyiceberg[sql-sqlite]'
    export PYICEBERG_CATALOG__LATER__URI=sqlite:////data/iceberg.db
    export PYICEBERG_CATALOG__LATER__WAREHOUSE=file:///data/iceberg
    LATER_LAKE_ROOT=/data/later dagster dev -f examples/iceberg.py

A run replaces its days, all in one commit, by what the lake has: a day that has become empty loses its rows, and a
second run changes nothing. The catalog `later` may be any that PyIceberg supports.
"""

from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.catalog import load_catalog
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.table import Table

from later_reporting_dagster.downstream import LaterLake, later_tables

LATER = later_tables()


def iceberg_table(source: dg.AssetSpec) -> dg.AssetsDefinition:
    """Return the asset that copies the partitions of its run, or a whole table without partitions."""
    name, is_partitioned = source.key.path[-1], source.partitions_def is not None

    @dg.asset(
        key=["iceberg", name],
        ins={"rows": dg.AssetIn(source.key)},
        partitions_def=source.partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed()),
        retry_policy=dg.RetryPolicy(max_retries=3, delay=10),
        kinds={"iceberg"},
    )
    def copied(context: dg.AssetExecutionContext, rows: ds.Dataset) -> dg.MaterializeResult[Any]:
        # Nullable, because a column that a later version adds is null in the days that were copied before.
        schema = pa.schema([field.with_nullable(True) for field in rows.schema])
        table = open_table(name, schema, is_partitioned=is_partitioned)
        # The dataset is read after the table was opened. If another run commits the same days meanwhile, this one
        # fails and is retried, so that the newest rows win.
        copy = rows.to_table().cast(schema)
        days = context.partition_key_range if is_partitioned else None
        # The column `date` is the partition key, also of weeks and months.
        selected = f"date >= '{days.start}' AND date <= '{days.end}'" if days else AlwaysTrue()
        table.overwrite(copy, overwrite_filter=selected)
        return dg.MaterializeResult(metadata={"rows": copy.num_rows, "table": str(table.location())})

    return copied


def open_table(name: str, schema: pa.Schema, *, is_partitioned: bool) -> Table:
    """Return an Iceberg table with at least the columns of a schema; create it if it does not exist."""
    catalog = load_catalog("later")
    catalog.create_namespace_if_not_exists("later")
    if not catalog.table_exists(f"later.{name}"):
        with catalog.create_table_transaction(f"later.{name}", schema) as new_table:
            if is_partitioned:  # one file per day, so that replacing a day rewrites no other
                with new_table.update_spec() as partition_spec:
                    partition_spec.add_identity("date")
    table = catalog.load_table(f"later.{name}")
    with table.update_schema() as columns:
        columns.union_by_name(schema)
    return table


defs = dg.Definitions(
    assets=[*map(iceberg_table, LATER.values()), *LATER.values()], resources={"later_lake": LaterLake()}
)
