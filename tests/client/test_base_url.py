"""A secret goes out in the clear to nobody, and the base URL is one."""

import httpx
import pytest

from later_reporting_dagster.client import AccessToken, LaterClient, RateLimiter, shared_state_path
from later_reporting_dagster.client.base_url import checked_base_url


@pytest.mark.parametrize(
    ("given_url", "used"),
    [
        ("https://reporting.api.later.com", "https://reporting.api.later.com"),
        ("https://reporting.api.later.com/", "https://reporting.api.later.com"),
        ("HTTPS://Reporting.API.later.com:8443", "https://reporting.api.later.com:8443"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.9.9.9/", "http://127.9.9.9"),
        ("http://LOCALHOST:8000", "http://localhost:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("https://reporting.api.later.com:1", "https://reporting.api.later.com:1"),
        ("https://reporting.api.later.com:65535", "https://reporting.api.later.com:65535"),
    ],
)
def test_https_anywhere_and_http_on_loopback(given_url, used):
    assert checked_base_url(given_url) == used


@pytest.mark.parametrize(
    "given_url",
    [
        *("http://reporting.api.later.com", "http://10.0.0.1", "http://0.0.0.0:80", "http://[::]", "http://[::2]"),
        *("http://localhost.evil.com", "http://127.0.0.1.evil.com", "http://localhost.", "http://127.1"),
        *("http://127.0.0.1%2eevil.com", "http://localhost%00.evil.com", "http://127.0.0.1%23.evil.com"),
        *("http://[::ffff:8.8.8.8]", "http://2130706433", "http://0x7f.1"),
    ],
)
def test_plain_http_beyond_loopback_is_refused_and_says_why(given_url):
    with pytest.raises(ValueError, match="the base URL") as refused:
        checked_base_url(given_url)
    assert str(refused.value) == (
        f"the base URL http://{httpx.URL(given_url).host} would send the token in the clear:"
        " use https (http is for loopback only)"
    )


@pytest.mark.parametrize(
    "given_url",
    [
        "",
        "reporting.api.later.com",
        "ftp://reporting.api.later.com",
        "https://",
        "https:///v2",
        "https://reporting.api.later.com/v2",
        "https://reporting.api.later.com?key=1",
        "https://reporting.api.later.com#top",
        "https://user:hunter2@reporting.api.later.com",
        "https://host:port",
        "https://a b",
        "https://reporting..later.com",
        f"https://{'a' * 64}.later.com",
        "https://reporting.api.later.com:0",
        "https://reporting.api.later.com:65536",
        "http://[::1",
        *("http://127.0.0.1@evil.com", "http://localhost:80@evil.com", "http://evil.com\\@127.0.0.1"),
        *("http://127.0.0.1\\@evil.com", "http://evil.com#@127.0.0.1", "http://evil.com?@127.0.0.1"),
        *("http:127.0.0.1", "//127.0.0.1", "http:///127.0.0.1", " http://127.0.0.1", "http://127.0.0.1\n"),
    ],
)
def test_anything_but_scheme_and_host_is_refused_and_not_repeated(given_url):
    with pytest.raises(ValueError, match="the base URL") as refused:
        checked_base_url(given_url)
    assert str(refused.value) == (
        "the base URL is a scheme and a host, as https://reporting.api.later.com, and nothing more"
    )
    with pytest.raises(ValueError, match="the base URL"):
        shared_state_path(given_url)
    with pytest.raises(ValueError, match="the base URL"):
        LaterClient(base_url=given_url, credentials=AccessToken("t"), limiter=RateLimiter(requests=1))


def test_a_client_sends_at_least_one_request_at_once():
    with pytest.raises(ValueError, match="concurrency is at least 1, not 0"):
        LaterClient(base_url="https://a", credentials=AccessToken("t"), limiter=RateLimiter(requests=1), concurrency=0)
