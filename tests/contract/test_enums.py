"""Tests of the platform of a content type."""

import pytest

from later_reporting_dagster.contract import Platform, platform_of


@pytest.mark.parametrize(
    ("content_type", "platform"),
    [
        ("instagram_reel", Platform.INSTAGRAM),
        ("tiktok", Platform.TIKTOK),
        ("twitter_post", Platform.TWITTER),
        ("pinterest_pin", None),
        ("", None),
        (None, None),
    ],
)
def test_platform_of_content_type_is_its_first_word(content_type, platform):
    assert platform_of(content_type) is platform
