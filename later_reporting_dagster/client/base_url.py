"""Validation of the API's base URL before any secret is sent to it."""

import ipaddress

import httpx


def validate_base_url(base_url: str) -> str:
    """Return scheme, host and port of a base URL.

    Raises:
        ValueError: it has another part, or would send secrets unencrypted.
    """
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL()
    # httpx would accept spaces as part of the host.
    has_origin_only = (
        base_url.split() == [base_url] and not (url.userinfo or url.query or url.fragment) and url.path in ("", "/")
    )
    if url.scheme not in ("http", "https") or not _is_valid_address(url) or not has_origin_only:
        # The message does not quote the URL, which may hold a password.
        raise ValueError("the base URL must be a scheme, host and port only, like https://reporting.api.later.com")
    if url.scheme == "http" and not is_loopback(url.host):
        raise ValueError(
            f"the base URL http://{url.host} would send the token unencrypted: use https (http is for loopback only)"
        )
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _is_valid_address(url: httpx.URL) -> bool:
    """Return whether a socket accepts the host and the port, which httpx does not check."""
    try:
        url.host.encode("idna")
    except UnicodeError:  # a label of the host is empty or too long
        return False
    return bool(url.host.strip(".")) and (url.port is None or 0 < url.port <= 65_535)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: localhost, ::1, or 127.0.0.0/8."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
