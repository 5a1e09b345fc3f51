"""For code locations downstream of this one, and for notebooks: its tables, and what loads them.

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
from later_reporting_dagster.defs.lake_tables import tables_of

__all__ = ["LaterLake", "later_tables"]


def later_tables() -> Mapping[str, dg.AssetSpec]:
    """The tables by name: each with its key, partitions and columns, and without what makes it.

    Their partitions begin at `LATER_START_DATE`: let it be the same here as where the tables are made.
    """
    return tables_of(defs)
