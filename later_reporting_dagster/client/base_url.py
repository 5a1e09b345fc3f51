"""Where the service is, checked before a secret goes there."""

import ipaddress

import httpx


def checked_base_url(base_url: str) -> str:
    """Scheme, host and port of a base URL, and nothing else.

    Raises:
        ValueError: it has another form, or would send secrets in the clear.
    """
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL()
    # httpx would take a space for part of the host.
    is_bare = (
        base_url.split() == [base_url] and not (url.userinfo or url.query or url.fragment) and url.path in ("", "/")
    )
    if url.scheme not in ("http", "https") or not _can_be_looked_up(url) or not is_bare:
        # It is not shown: it may hold a password.
        raise ValueError("the base URL is a scheme and a host, as https://reporting.api.later.com, and nothing more")
    if url.scheme == "http" and not is_loopback(url.host):
        raise ValueError(
            f"the base URL http://{url.host} would send the token in the clear: use https (http is for loopback only)"
        )
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _can_be_looked_up(url: httpx.URL) -> bool:
    """Whether a socket takes its host and port, which httpx does not ask."""
    try:
        url.host.encode("idna")
    except UnicodeError:  # a part of the host is empty or too long
        return False
    return bool(url.host.strip(".")) and (url.port is None or 0 < url.port <= 65_535)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself: localhost, ::1, or 127.0.0.0/8."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
