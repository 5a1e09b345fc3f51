"""Read posts from `later-reporting serve`, with null as `<NA>` and counts as integers, in pandas.

    python examples/served_posts.py [FIRST_DAY LAST_DAY]

By default, it reads the posts published in the last 30 days.
"""

import os
import sys
from datetime import UTC, datetime, timedelta

import httpx
import pandas as pd

TYPES = {"impressions": "Int64", "engagements": "Int64", "cpm": "Float64", "paidImpressions": "Int64"}
names = {"clientId": "LATER_SERVE_CLIENT_ID", "clientSecret": "LATER_SERVE_CLIENT_SECRET"}
yesterday = datetime.now(UTC).date() - timedelta(days=1)
first, last = sys.argv[1:3] or [str(yesterday - timedelta(days=29)), str(yesterday)]
query: dict[str, str | int | None] = {"startDate": first, "endDate": last, "metrics": ",".join(TYPES), "limit": 100}
rows = []
with httpx.Client(base_url=os.environ["LATER_BASE_URL"], timeout=120) as api:
    token = api.post("/oauth/token", json={key: os.environ[name] for key, name in names.items()}).raise_for_status()
    api.headers["Authorization"] = f"Bearer {token.json()['jwt']}"
    while query.get("nextCursor", "") is not None:
        response = api.get("/v2/posts/performance", params=query).raise_for_status()
        rows += [{**post, **post["metrics"]} for post in response.json()["data"]]
        query["nextCursor"] = response.json()["nextCursor"]

if not rows:
    raise SystemExit(f"no posts from {first} to {last}")
posts = pd.DataFrame(rows, dtype=object).drop(columns="metrics").astype(TYPES).infer_objects()
posts["postDate"] = pd.to_datetime(posts["postDate"], format="ISO8601")
once = posts.drop_duplicates(["instanceId", "postId"])  # there is a row for each campaign of a post
print(once.groupby("contentType")["impressions"].sum(min_count=1))
print("missing:", response.headers.get("X-Later-Missing-Days", "nothing"))
