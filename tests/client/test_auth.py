"""A token is used for as long as it says, is never shown, and is renewed once however many ask."""

import base64
import math

import pytest

from later_reporting_dagster.client import AccessToken, ClientCredentials
from later_reporting_dagster.client.auth import _Token, expiry_of, is_header_safe
from tests.client.service import jwt


@pytest.mark.parametrize(("client_id", "client_secret"), [("", "secret"), ("id", "")])
def test_credentials_need_both_parts(client_id, client_secret):
    with pytest.raises(ValueError, match="^client id and client secret are both needed, and one is empty$"):
        ClientCredentials(client_id, client_secret)


@pytest.mark.parametrize("odd", ["pässword", "bell\x07", " led", "trailed\n", "two\nlines", "x" * 8193])
def test_credentials_that_no_service_hands_out_are_refused_by_name_without_being_shown(odd):
    for name, given in (("id", (odd, "secret")), ("secret", ("id", odd))):
        with pytest.raises(ValueError, match="copy it anew") as refused:
            ClientCredentials(*given)
        assert str(refused.value) == (
            f"the client {name} holds a line break, spaces around it, more than 8192 characters or any beyond ASCII: "
            "copy it anew"
        )


@pytest.mark.parametrize("token", ["", "two words", "line\n", "ünicode", "\x00", "x" * 8193])
def test_a_token_that_no_header_can_hold_is_refused_without_being_shown(token):
    assert not is_header_safe(token)
    with pytest.raises(ValueError, match="token") as refused:
        AccessToken(token)
    assert str(refused.value) == (
        "the access token is empty or holds spaces, line breaks, more than 8192 characters or any beyond ASCII: "
        "copy it anew"
    )


def test_a_token_may_hold_every_visible_character():
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
        (jwt(exp=None), None),
        (jwt(exp=True), None),
        (jwt(exp=10**400), None),
        (jwt(exp=1e308), 1e308),
        (jwt(exp=-1e308), -1e308),
        (jwt(exp="1750000000"), None),
        (jwt(exp=math.nan), None),
        (jwt(exp=-math.inf), None),
        (jwt(exp={"exp": 1}), None),
        (jwt(exp=[1]), None),
        ("a." + base64.b64encode(b'{"x":' + b"[" * 10**5).decode() + ".c", None),
        *((jwt(exp=1, padded="x" * length), 1.0) for length in range(4)),
        ("opaque", None),
        ("a.b.c", None),
        ("a.ünicode.c", None),
        ("..", None),
    ],
)
def test_the_expiry_is_the_jwts_own(token, expiry):
    assert expiry_of(token) == expiry


@pytest.mark.parametrize(
    ("lifetime", "good_for"), [(12 * 3600, 12 * 3600 - 60), (600, 540), (300, 270), (3, 2.7), (0.5, 0.45)]
)
def test_the_margin_is_a_minute_and_never_more_than_a_tenth_of_the_lifetime(lifetime, good_for):
    token = _Token.received(jwt(exp=1000 + lifetime), now=1000)
    assert token.good_until == pytest.approx(1000 + good_for)


@pytest.mark.parametrize("token", ["opaque", jwt(exp=999), jwt(exp=1000), jwt(exp=-1e308), jwt(exp=math.nan)])
def test_a_token_of_unknown_expiry_or_expired_on_arrival_is_used_until_it_is_refused(token):
    assert _Token.received(token, now=1000).good_until == float("inf")
