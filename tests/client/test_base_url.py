"""Tests of base URL validation: secrets are sent by https, or to loopback, and URLs with other parts are rejected."""

import httpx
import pytest

from later_reporting_dagster.client import AccessToken, LaterClient, RateLimiter, rate_limit_state_path
from later_reporting_dagster.client.auth import validate_base_url


@pytest.mark.parametrize(
    ("base_url", "validated"),
    [
        ("https://reporting.api.later.com", "https://reporting.api.later.com"),
        ("HTTPS://Reporting.API.later.com:65535/", "https://reporting.api.later.com:65535"),
        ("http://127.9.9.9:8000/", "http://127.9.9.9:8000"),
        ("http://LOCALHOST:8000", "http://localhost:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_base_url_may_be_https_or_http_to_loopback(base_url, validated):
    assert validate_base_url(base_url) == validated


@pytest.mark.parametrize(
    "base_url",
    [
        *("http://reporting.api.later.com", "http://10.0.0.1", "http://0.0.0.0:80", "http://[::]"),
        *("http://localhost.evil.com", "http://127.0.0.1.evil.com", "http://localhost%00.evil.com"),
    ],
)
def test_base_url_with_http_to_another_host_is_rejected(base_url):
    with pytest.raises(ValueError, match="the base URL") as raised:
        validate_base_url(base_url)
    assert str(raised.value) == (
        f"the base URL http://{httpx.URL(base_url).host} would send the token unencrypted:"
        " use https (http is for loopback only)"
    )


@pytest.mark.parametrize(
    "base_url",
    [
        *("", "reporting.api.later.com", "ftp://reporting.api.later.com", "https://", "https:///v2", "https://a b"),
        *("https://reporting.api.later.com/v2", "https://reporting.api.later.com?key=1", "https://later.com#top"),
        *("https://user:hunter2@reporting.api.later.com", "https://reporting..later.com", "https://host:port"),
        *("https://reporting.api.later.com:0", "https://reporting.api.later.com:65536", "http://[::1"),
        *("http://127.0.0.1@evil.com", "http://evil.com\\@127.0.0.1", "http://evil.com#@127.0.0.1"),
        *("http:127.0.0.1", "//127.0.0.1", " http://127.0.0.1", "http://127.0.0.1\n"),
    ],
)
def test_base_url_with_other_parts_is_rejected_without_being_quoted(base_url):
    with pytest.raises(ValueError, match="the base URL") as raised:
        validate_base_url(base_url)
    assert str(raised.value) == (
        "the base URL must be a scheme, host and port only, like https://reporting.api.later.com"
    )
    with pytest.raises(ValueError, match="the base URL"):
        rate_limit_state_path(base_url)
    with pytest.raises(ValueError, match="the base URL"):
        LaterClient(base_url=base_url, credentials=AccessToken("t"), limiter=RateLimiter(requests=1))


def test_client_concurrency_must_be_at_least_one():
    with pytest.raises(ValueError, match="concurrency must be at least 1, not 0"):
        LaterClient(base_url="https://a", credentials=AccessToken("t"), limiter=RateLimiter(requests=1), concurrency=0)
