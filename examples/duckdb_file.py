"""Copy all tables of the lake, with their comments, to a DuckDB file that BI tools open, also with older drivers.

    python examples/duckdb_file.py later.duckdb

Each run replaces all of them: repeat it after the daily run.
"""

import sys

import duckdb
import pyarrow as pa

from later_reporting_dagster.downstream import LaterLake, later_tables

with duckdb.connect(sys.argv[1], config={"storage_compatibility_version": "v1.2.0"}) as database:
    for name, table in later_tables().items():
        rows = LaterLake().load(table, pa.Table)
        database.sql(f"CREATE OR REPLACE TABLE {name} AS FROM rows")
        for column in table.metadata["dagster/column_schema"].columns:
            comment = column.description.replace("'", "''")
            database.sql(f"COMMENT ON COLUMN {name}.{column.name} IS '{comment}'")
