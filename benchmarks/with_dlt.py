"""Method: dlt's rest_api source as in its documentation, with one query for each day and instance.

The pairs of day and instance are the parent resource: dlt fetches the dependent resource in parallel and repeats it by
pair after a failure. The posts are one Parquet table, because dlt's filesystem destination has no partitions by value.
"""

import os
from pathlib import Path

import dlt
from dlt.sources.helpers import requests
from dlt.sources.rest_api import rest_api_source

from benchmarks.measurement import CREDENTIALS, TABLE_NAMES, Measurement, PartitionRange


def fetch(partitions: PartitionRange, *, base_url: str, date_basis: str, root: Path) -> Measurement:
    """Fetch partitions."""
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    token = requests.post(f"{base_url}/oauth/token", json=CREDENTIALS).json()["jwt"]
    pairs = [{"day": str(each.start), "instance": each.instance_ids[0]} for each in partitions.partitions]
    table = TABLE_NAMES[date_basis]
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
                dlt.resource([pairs], name="pairs", selected=False),
                {
                    "name": table,
                    "write_disposition": "append",
                    "primary_key": ["instanceId", "campaignId", "postId"],
                    "parallelized": True,
                    "endpoint": {
                        "path": "v2/posts/performance",
                        "params": {
                            "startDate": "{resources.pairs.day}",
                            "endDate": "{resources.pairs.day}",
                            "instanceIds": "{resources.pairs.instance}",
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
    assert pipeline.last_trace is not None
    assert pipeline.last_trace.last_normalize_info is not None
    return Measurement(rows=pipeline.last_trace.last_normalize_info.row_counts[table])
