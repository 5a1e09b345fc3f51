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

from later_reporting_dagster.defs.component import LaterReportingComponent
from later_reporting_dagster.defs.io_manager import LaterLake, table_specs

__all__ = ["LaterLake", "later_tables"]


def later_tables(component: LaterReportingComponent | None = None) -> Mapping[str, dg.AssetSpec]:
    """Return the asset specs of all tables by name, to add to the definitions of another code location.

    A spec has the key, the partitions and the columns of its table. For these to match the files, give the component
    the same attributes as in the code location that materializes the tables.

    Args:
        component: the component that materializes the tables; default: the one that the environment sets.
    """
    component = component or LaterReportingComponent.from_environment()
    return table_specs(component.build_definitions(), component)
