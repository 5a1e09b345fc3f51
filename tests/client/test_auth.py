"""Tests of credentials and tokens: validation, expiry and redaction."""

import base64
import math

import pytest

from later_reporting_dagster.client import AccessToken, ClientCredentials
from later_reporting_dagster.client.auth import Token, is_header_safe, token_expiry
from tests.client.scripted_api import jwt


@pytest.mark.parametrize(("client_id", "client_secret"), [("", "secret"), ("id", "")])
def test_credentials_require_id_and_secret(client_id, client_secret):
    with pytest.raises(ValueError, match="^client id and client secret are both required, and one is empty$"):
        ClientCredentials(client_id, client_secret)


@pytest.mark.parametrize("value", ["pässword", "bell\x07", " leading", "trailing\n", "two\nlines", "x" * 8193])
def test_invalid_credentials_raise_an_error_that_names_the_part_but_not_its_value(value):
    for name, given in (("id", (value, "secret")), ("secret", ("id", value))):
        with pytest.raises(ValueError, match=f"^the client {name} contains .*: copy it again$") as raised:
            ClientCredentials(*given)
        assert value not in str(raised.value)


@pytest.mark.parametrize("token", ["", "two words", "line\n", "ünicode", "\x00", "x" * 8193])
def test_token_that_a_header_cannot_hold_raises_an_error_without_its_value(token):
    assert not is_header_safe(token)
    with pytest.raises(ValueError, match="^the access token is empty or contains .*: copy it again$") as raised:
        AccessToken(token)
    assert not token or token not in str(raised.value)


def test_token_may_have_any_visible_ascii_character():
    assert is_header_safe("".join(map(chr, range(0x21, 0x7F))))
    assert is_header_safe("x" * 8192)
    assert not is_header_safe("\x7f")


@pytest.mark.parametrize(
    ("token", "expiry"),
    [
        (jwt(exp=1_750_000_000), 1_750_000_000.0),
        (jwt(exp=1_750_000_000.5, sub="x"), 1_750_000_000.5),
        (jwt(sub="x"), None),
        (jwt(exp="soon"), None),
        (jwt(exp=10**400), None),
        (jwt(exp=math.nan), None),
        ("a." + base64.b64encode(b'{"x":' + b"[" * 10**5).decode() + ".c", None),
        *((jwt(exp=1, padded="x" * length), 1.0) for length in range(4)),
        ("opaque", None),
        ("a.b.c", None),
        ("a.ünicode.c", None),
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
