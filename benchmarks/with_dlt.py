"""dlt's rest_api source, written as its documentation teaches: declared, and asked once for each day and instance.

A day and instance is what is fetched again when it fails, so they are the parent of a dependent resource, which dlt
fetches in parallel. The posts land as Parquet in one table: dlt's filesystem has no partitions by value.
"""

import os
from pathlib import Path

import dlt
from dlt.sources.helpers import requests
from dlt.sources.rest_api import rest_api_source

from benchmarks.workload import CREDENTIALS, SOURCES, Box, Figures


def land(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """Lands a box."""
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    token = requests.post(f"{base_url}/oauth/token", json=CREDENTIALS).json()["jwt"]
    cells = [{"day": str(cell.start), "instance": cell.instance_ids[0]} for cell in box.cells]
    table = SOURCES[date_basis]
    source = rest_api_source(
        {
            "client": {
                "base_url": base_url,
                "auth": {"type": "bearer", "token": token},
                "paginator": {
                    "type": "page_number",
                    "base_page": 1,
                    "page_param": "pageNumber",
                    "total_path": "pagination.totalPages",
                },
            },
            "resources": [
                dlt.resource([cells], name="cells", selected=False),
                {
                    "name": table,
                    "write_disposition": "append",
                    "primary_key": ["instanceId", "campaignId", "postId"],
                    "parallelized": True,
                    "endpoint": {
                        "path": "v2/posts/performance",
                        "params": {
                            "startDate": "{resources.cells.day}",
                            "endDate": "{resources.cells.day}",
                            "instanceIds": "{resources.cells.instance}",
                            "dateBasis": date_basis,
                            "pageSize": 100,
                        },
                        "data_selector": "data",
                    },
                },
            ],
        }
    )
    pipeline = dlt.pipeline(
        pipeline_name="later",
        pipelines_dir=str(root / "pipelines"),
        destination=dlt.destinations.filesystem(bucket_url=str(root / "lake")),
        dataset_name="later",
    )
    pipeline.run(source, loader_file_format="parquet").raise_on_failed_jobs()
    return Figures(rows=pipeline.last_trace.last_normalize_info.row_counts[table])
