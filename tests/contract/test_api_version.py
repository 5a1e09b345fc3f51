"""Tests of the detection of the API version by the members of an envelope."""

from later_reporting_dagster.contract import CURSOR, PAGED
from later_reporting_dagster.contract.parameters import version_of_envelope


def test_version_of_envelope_is_unknown_with_both_or_neither_pagination_member():
    assert version_of_envelope({"data", "pagination"}) is PAGED
    assert version_of_envelope({"data", "nextCursor"}) is CURSOR
    assert version_of_envelope({"data"}) is version_of_envelope({"pagination", "nextCursor"}) is None
