"""The tables and the IO manager, for downstream code locations and notebooks.

```python
import dagster as dg
import pandas as pd

from later_reporting_dagster.downstream import LaterLake, later_tables


@dg.asset(ins={"posts_published": dg.AssetIn(["later", "posts_published"])})
def creators(posts_published: pd.DataFrame) -> None: ...


defs = dg.Definitions(assets=[creators, *later_tables().values()], resources={"later_lake": LaterLake()})
```
"""

from collections.abc import Mapping

import dagster as dg

from later_reporting_dagster.definitions import defs
from later_reporting_dagster.defs.io_manager import LaterLake
from later_reporting_dagster.defs.lake_tables import table_specs

__all__ = ["LaterLake", "later_tables"]


def later_tables() -> Mapping[str, dg.AssetSpec]:
    """Return the asset specs of all tables by name, to add to your definitions.

    A spec has the key, the partitions and the columns of its table. For these to match the files, set
    `LATER_START_DATE`, `LATER_METRICS` and `LATER_LAKE_ROOT` to the same values as in the code location that
    materializes the tables.
    """
    return table_specs(defs)
