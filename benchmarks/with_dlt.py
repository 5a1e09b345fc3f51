"""Method: dlt's rest_api source as in its documentation, as a person would write it who has read the API reference.

One query over all instances for each month by `post_date`, and for each day by `performance_date`. These ranges are the
parent resource: dlt fetches the dependent resource in parallel and repeats it by range after a failure. The posts are
one Parquet table, because dlt's filesystem destination has no partitions by value.
"""

import os
from datetime import date
from itertools import groupby
from pathlib import Path

import dlt
from dlt.sources.helpers import requests
from dlt.sources.rest_api import rest_api_source

from benchmarks.measurement import CREDENTIALS, TABLE_NAMES, Measurement, PartitionRange


def fetch(partitions: PartitionRange, *, base_url: str, date_basis: str, root: Path) -> Measurement:
    """Fetch partitions."""
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    token = requests.post(f"{base_url}/oauth/token", json=CREDENTIALS).json()["jwt"]
    ranges = [{"start": str(first), "end": str(last)} for first, last in _ranges(partitions, date_basis)]
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
                dlt.resource([ranges], name="ranges", selected=False),
                {
                    "name": table,
                    "write_disposition": "append",
                    "primary_key": ["instanceId", "campaignId", "postId"],
                    "parallelized": True,
                    "endpoint": {
                        "path": "v2/posts/performance",
                        "params": {
                            "startDate": "{resources.ranges.start}",
                            "endDate": "{resources.ranges.end}",
                            "instanceIds": ",".join(partitions.instance_ids),
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


def _ranges(partitions: PartitionRange, date_basis: str) -> list[tuple[date, date]]:
    """Return the first and last day of each query."""
    if date_basis == "performance_date":
        return [(day, day) for day in partitions.days]
    months = [[*days] for _, days in groupby(partitions.days, key=lambda day: (day.year, day.month))]
    return [(days[0], days[-1]) for days in months]
