"""Tests of the client with a real server, mostly in both API versions."""

from datetime import UTC, datetime

import httpx
import pytest

from later_reporting_dagster.client import AccessToken, InconsistentPages
from later_reporting_dagster.client.client import Probe
from later_reporting_dagster.contract import PAGED
from tests.client.scripted_api import THREE_PAGES, fetch_instances, fetch_posts, page_body, post, run_with


def test_fetch_posts_returns_every_post_once_in_the_order_of_the_api(service, new_client_of_each_version, july):
    service.posts = THREE_PAGES
    result = fetch_posts(new_client_of_each_version(), july)
    assert [(each.post_id, each.impressions, each.engagements, each.cpm) for each in result.items] == [
        (number, number * 10, 0, None) for number in range(250)
    ]
    assert (result.total_items, result.pages) == (250, 3)
    assert (len(service.requests_to()), result.bad_rows) == (3, [])


def test_fetch_posts_without_posts_fetches_one_page(service, new_client_of_each_version, july):
    result = fetch_posts(new_client_of_each_version(), july)
    assert (result.items, result.total_items, result.pages, len(service.requests_to())) == ([], 0, 1, 1)


def test_fetch_posts_separates_bad_rows(service, new_client_of_each_version, july):
    service.posts = [*THREE_PAGES, post(999) | {"impressions": 0.5}]
    result = fetch_posts(new_client_of_each_version(), july)
    assert (len(result.items), result.total_items) == (250, 251)
    assert [row.reason for row in result.bad_rows] == ["impressions must be a whole number, not 0.5"]
    assert '"impressions":0.5' in result.bad_rows[0].raw


def test_fetch_instances_returns_ids_of_all_pages(service, new_client_of_each_version):
    service.instance_ids = [f"i{number}" for number in range(250)]
    assert fetch_instances(new_client_of_each_version()) == tuple(service.instance_ids)
    assert len(service.requests_to("/v2/instances")) == 3


def test_fetch_instances_with_duplicates_raises(service, new_client_of_each_version):
    service.instance_ids = ["a", "b", "a"]
    with pytest.raises(InconsistentPages, match="instances: inconsistent pages in 2 fetches: 1 of 3 rows are dupl"):
        fetch_instances(new_client_of_each_version())


def probe(client):
    return run_with(client, lambda client: client.probe())


def test_probe_returns_version_rate_limit_and_server_time(service, new_client):
    service.headers = {"X-Ratelimit-Limit": "120", "X-Ratelimit-Window": "60"}
    probed = probe(new_client())
    assert (probed.api_version, probed.limit, probed.window_seconds) == (PAGED, 120, 60.0)
    assert abs((probed.server_time - datetime.now(UTC)).total_seconds()) < 60
    assert len(service.requests) == 2
    # Valid in both API versions, so the envelope shows the version.
    assert service.requests_to("/v2/instances")[0].parameters == []


def test_probe_of_a_response_without_headers_has_no_limit_and_no_time(new_client):
    empty = page_body([], page=1, page_size=1, total_items=0) | {"data": {"instanceIds": []}}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=empty))
    assert probe(new_client(transport=transport, credentials=AccessToken("ready"))) == Probe(PAGED, None, None, None)
