"""Tests of credentials, tokens and base URLs: secrets are valid, not quoted, and sent by https or to loopback."""

import base64
import math

import httpx
import pytest

from later_reporting_dagster.client import AccessToken, ClientCredentials, LaterClient, RateLimiter
from later_reporting_dagster.client.auth import Token, token_expiry, validate_base_url
from later_reporting_dagster.client.rate_limiter import rate_limit_path
from tests.client.scripted_api import jwt


@pytest.mark.parametrize("value", ["", "pässword", "bell\x07", " leading", "trailing\n", "two\nlines", "x" * 8193])
def test_invalid_credentials_raise_an_error_that_names_the_part_but_not_its_value(value):
    for name, given in (("id", (value, "secret")), ("secret", ("id", value))):
        reason = f"^the client {name} contains .*: copy it again$" if value else "^client id .* one is empty$"
        with pytest.raises(ValueError, match=reason) as raised:
            ClientCredentials(*given)
        assert not value or value not in str(raised.value)


@pytest.mark.parametrize("token", ["", "two words", "line\n", "ünicode", "\x00", "x" * 8193])
def test_token_that_a_header_cannot_hold_raises_an_error_without_its_value(token):
    with pytest.raises(ValueError, match="^the access token is empty or contains .*: copy it again$") as raised:
        AccessToken(token)
    assert not token or token not in str(raised.value)


@pytest.mark.parametrize(
    ("token", "expiry"),
    [
        (jwt(exp=1_750_000_000), 1_750_000_000.0),
        (jwt(exp=1_750_000_000.5, sub="x"), 1_750_000_000.5),
        (jwt(sub="x"), None),
        (jwt(exp=10**400), None),
        (jwt(exp=math.nan), None),
        ("a." + base64.b64encode(b'{"x":' + b"[" * 10**5).decode() + ".c", None),
        *((jwt(exp=1, padded="x" * length), 1.0) for length in range(4)),
        ("opaque", None),
        ("a.b.c", None),
    ],
)
def test_token_expiry_is_the_exp_of_the_jwt(token, expiry):
    assert token_expiry(token) == expiry


@pytest.mark.parametrize(
    ("lifetime", "valid_for"), [(12 * 3600, 12 * 3600 - 60), (600, 540), (300, 270), (3, 2.7), (0.5, 0.45)]
)
def test_token_is_renewed_a_minute_or_a_tenth_of_its_lifetime_before_expiry(lifetime, valid_for):
    token = Token.received(jwt(exp=1000 + lifetime), now=1000)
    assert token.valid_until == pytest.approx(1000 + valid_for)


@pytest.mark.parametrize("token", ["opaque", jwt(exp=999), jwt(exp=1000)])
def test_token_of_unknown_or_past_expiry_is_valid_until_rejected(token):
    assert Token.received(token, now=1000).valid_until == float("inf")


@pytest.mark.parametrize(
    ("base_url", "validated"),
    [
        ("https://reporting.api.later.com", "https://reporting.api.later.com"),
        ("HTTPS://Reporting.API.later.com:65535/", "https://reporting.api.later.com:65535"),
        ("http://127.9.9.9:8000/", "http://127.9.9.9:8000"),
        ("http://LOCALHOST:8000", "http://localhost:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("https://reporting.api.later.com:443", "https://reporting.api.later.com"),
        ("https://reporting.api.later.com.", "https://reporting.api.later.com."),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_base_url_may_be_https_or_http_to_loopback(base_url, validated):
    assert validate_base_url(base_url) == validated


@pytest.mark.parametrize(
    "base_url",
    [
        *("http://reporting.api.later.com", "http://10.0.0.1", "http://0.0.0.0:80", "http://[::]"),
        *("http://localhost.evil.com", "http://127.0.0.1.evil.com"),
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
        *("", "reporting.api.later.com", "ftp://reporting.api.later.com", "https:///v2", "https://a b"),
        *("https://reporting.api.later.com/v2", "https://reporting.api.later.com?key=1", "https://later.com#top"),
        *("https://user:hunter2@reporting.api.later.com", "https://reporting..later.com", "https://host:port"),
        *("https://reporting.api.later.com:0", "https://reporting.api.later.com:65536", "http://[::1"),
        *("http://127.0.0.1@evil.com", "http://evil.com\\@127.0.0.1", "http://evil.com#@127.0.0.1"),
        *(
            "http:127.0.0.1",
            "https://[::::]",
            "https://xn--a",
            "http://localhost%00.evil.com",
            "//127.0.0.1",
            " http://127.0.0.1",
            "http://127.0.0.1\n",
        ),
    ],
)
def test_base_url_with_other_parts_is_rejected_without_being_quoted(base_url):
    with pytest.raises(ValueError, match="the base URL") as raised:
        validate_base_url(base_url)
    assert str(raised.value) == (
        "the base URL must be a scheme, host and port only, like https://reporting.api.later.com"
    )
    with pytest.raises(ValueError, match="the base URL"):
        rate_limit_path(base_url)
    with pytest.raises(ValueError, match="the base URL"):
        LaterClient(base_url=base_url, credentials=AccessToken("t"), limiter=RateLimiter(requests=1))


def test_client_concurrency_must_be_at_least_one():
    with pytest.raises(ValueError, match="concurrency must be at least 1, not 0"):
        LaterClient(base_url="https://a", credentials=AccessToken("t"), limiter=RateLimiter(requests=1), concurrency=0)
