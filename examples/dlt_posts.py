"""Load posts into DuckDB with dlt, from a lake that `later-reporting serve` offers, or from Later's API.

    python examples/dlt_posts.py 2024-01-01 2024-01-31

One table, without days or instances as partitions, and without the checks of this project: posts that come or go
between two pages are lost or doubled, which cannot happen while reading `serve`.
"""

import os
import sys

import dlt
from dlt.sources.helpers import requests
from dlt.sources.rest_api import rest_api_source

base_url = os.environ["LATER_BASE_URL"]
credentials = {"clientId": os.environ["LATER_SERVE_CLIENT_ID"], "clientSecret": os.environ["LATER_SERVE_CLIENT_SECRET"]}
token = requests.post(f"{base_url}/oauth/token", json=credentials).json()["jwt"]
first_day, last_day = sys.argv[1:]
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
            {
                "name": "posts",
                "write_disposition": "replace",
                "endpoint": {
                    "path": "v2/posts/performance",
                    "params": {"startDate": first_day, "endDate": last_day, "pageSize": 100},
                    "data_selector": "data",
                },
            }
        ],
    }
)
pipeline = dlt.pipeline("later", destination=dlt.destinations.duckdb("posts.duckdb"), dataset_name="later")
print(pipeline.run(source))
