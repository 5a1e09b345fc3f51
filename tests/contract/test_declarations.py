"""A new metric and a new parameter of a path are one line each in its declaration: nothing else is said of either."""

import json
from dataclasses import replace
from datetime import date

import pytest

from later_reporting_dagster.contract import API_VERSIONS, METRICS, ApiVersion, Metric, PerformanceQuery
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.contract.query import ListQuery
from later_reporting_dagster.contract.route import CAMPAIGNS, POSTS_PERFORMANCE

DAY = date(2024, 3, 1)
ROW = {"instanceId": "a", "campaignId": 1, "postId": 2, "postDate": "2024-03-01T05:00:00Z"}
in_both_versions = pytest.mark.parametrize("version", API_VERSIONS.values(), ids=str)


@in_both_versions
def test_parameter_is_sent_if_the_declaration_has_it(version: ApiVersion) -> None:
    route = replace(CAMPAIGNS, parameters_of_all=(("status", "LIVE"),))
    added = {*route.parameters(ListQuery(("a",)), version)} - {*CAMPAIGNS.parameters(ListQuery(("a",)), version)}
    assert added == {("status", "LIVE")}


@in_both_versions
def test_metric_is_requested_and_known_and_named_if_the_declaration_has_it(version: ApiVersion) -> None:
    metric = Metric("profileVisits", Kind.COUNT, "visits", "Visits to the profile")
    route = replace(POSTS_PERFORMANCE, metrics=(*METRICS, metric))
    query = PerformanceQuery(start_date=DAY, end_date=DAY, metrics=(metric,))
    assert (dict(route.parameters(query, version)).get("metrics") == "profileVisits") is version.uses_cursors
    row = ROW | ({"metrics": {"profileVisits": 7}} if version.uses_cursors else {"profileVisits": 7})
    envelope = {"data": [row], version.pagination_member: None if version.uses_cursors else {"totalItems": 1}}
    page = route.parse_page(json.dumps(envelope).encode(), query, version)
    assert [row.profile_visits for row in page.items] == [7]
    assert "profileVisits" in str(route.known_fields)
    assert "profileVisits" not in str(POSTS_PERFORMANCE.known_fields)
