"""The commands that serve the API until Ctrl-C: `sandbox` over synthetic data, `serve` over the lake."""

import logging
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from starlette.types import ASGIApp

from later_reporting_dagster.cli.options import NumberRange, check_all, current_project, prefix_errors_with, yesterday
from later_reporting_dagster.contract import API_VERSIONS
from later_reporting_dagster.server import Client, listen
from later_reporting_dagster.server import sandbox as sandbox_package
from later_reporting_dagster.server import serve as serve_app
from later_reporting_dagster.server.http_server import DEFAULT_PORT
from later_reporting_dagster.server.tokens import parse_clients

# Both commands import HTTPX and DuckDB themselves, which `--help` does not need.

ID_VARIABLE, SECRET_VARIABLE = "LATER_SERVE_CLIENT_ID", "LATER_SERVE_CLIENT_SECRET"  # noqa: S105 - names
MIN_SECRET_LENGTH = 16  # beyond this machine

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _host(_context: click.Context, _parameter: click.Parameter, host: str) -> str:
    # An empty one would listen on all addresses.
    if not host or not host.isascii():
        raise click.BadParameter("it is no address: omit it to listen on this machine only")
    return host


def _address_options(command: _Command) -> _Command:
    port = click.option(
        "--port", default=DEFAULT_PORT, type=click.IntRange(0, 65_535), help="Port to listen on; 0 picks a free one."
    )
    return click.option("--host", default="127.0.0.1", callback=_host, help="Address to listen on.")(port(command))


def _serve(
    app: ASGIApp, *, host: str, port: int, comments: Sequence[str], credentials: Mapping[str, str] | None = None
) -> None:
    """Serve an application until interrupted; print its URL and credentials, so that a shell can evaluate them."""
    from later_reporting_dagster.client.auth import is_loopback

    def print_settings(base_url: str) -> None:
        for comment in comments:
            click.echo(f"# {comment}")
        for name, value in {"LATER_BASE_URL": base_url, **(credentials or {})}.items():
            click.echo(f"export {name}={value}")
        if not is_loopback(host):
            click.echo("Clients on other machines need https: put a proxy with TLS before this server.", err=True)

    with prefix_errors_with("--host, --port"):
        listener = listen(host, port)
    serve_app(app, listener, on_ready=print_settings)


@click.command()
@_address_options
@click.option(
    "--instances",
    default=8,
    type=click.IntRange(1, 10_000),
    help="Instances, besides the two of the API reference: 1 makes 3.",
)
@click.option(
    "--posts-per-day", default=20, type=click.IntRange(0, sandbox_package.MAX_POSTS_PER_DAY),
    help="Average posts per day and instance.",
)  # fmt: skip
@click.option(
    "--api-version", default="paged", type=click.Choice(list(API_VERSIONS)),
    help="API version: paged (numbered pages with totals) or cursor (cursors without totals; a query names its"
    " metrics).",
)  # fmt: skip
def sandbox(*, host: str, port: int, api_version: str, **world_options: Any) -> None:
    """Serve the API locally over synthetic data, until Ctrl-C.

    Prints the days that have posts, and the environment variables that point the
    client at it.
    """
    world = sandbox_package.World(
        first_day=sandbox_package.two_years_before(yesterday()),
        last_day=yesterday(),
        extra_instance_ids=sandbox_package.EXAMPLE_INSTANCE_IDS,
        **world_options,
    )
    options = sandbox_package.SandboxOptions(api_version=API_VERSIONS[api_version])
    number = len(world.instance_ids)
    comments = (
        sandbox_package.BANNER,
        f"{number} instances with posts from {world.first_day} to {world.last_day} (UTC); other days are empty.",
    )
    credentials = {"LATER_CLIENT_ID": options.client_id, "LATER_CLIENT_SECRET": options.client_secret}
    app = sandbox_package.create_app(world, options=options)
    _serve(app, host=host, port=port, comments=comments, credentials=credentials)


def _read_clients(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> tuple[Client, ...]:
    """Return the clients of a TOML file; none without a file."""
    if path is None:
        return ()
    with prefix_errors_with(f"--clients {path}"):
        clients, mode = parse_clients(path.read_text(encoding="utf-8")), path.stat().st_mode
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        click.echo(f"{path} can be read by other users of this machine: chmod 600 {path}", err=True)
    return clients


@click.command(context_settings={"auto_envvar_prefix": "LATER_SERVE"})
@_address_options
@click.option("--no-auth", is_flag=True, help="Require no token. Only on a loopback address.")
@click.option(
    "--clients", metavar="FILE", type=click.Path(path_type=Path), callback=_read_clients,
    help="TOML file of several clients, each with its instances.",
)  # fmt: skip
@click.option(
    "--api-version", default="auto", type=click.Choice(["auto", *API_VERSIONS]),
    help="API version to serve: paged, cursor, or that of the parameters of each request.",
)  # fmt: skip
@click.option("--strict", is_flag=True, help="Refuse a query with 409 if a file of its days and instances is missing.")
@click.option("--memory-gb", default=1.0, type=NumberRange(0.25, 1e6), help="Memory limit of DuckDB, in GB.")
@click.option(
    "--snapshot-gb", default=8.0, type=NumberRange(0, 1e6, min_open=True), help="Disk space below TMPDIR, in GB."
)
def serve(
    *, host: str, port: int, no_auth: bool, clients: tuple[Client, ...], api_version: str, **settings: Any
) -> None:
    """Serve the lake through the API's own endpoint, until Ctrl-C.

    Everything that reads Later's Reporting API reads the lake instead, by
    another base URL. Only reads. Every option is also an environment variable,
    such as LATER_SERVE_PORT; the credentials of a client are only variables:

    \b
      export LATER_SERVE_CLIENT_ID=dashboards
      export LATER_SERVE_CLIENT_SECRET=$(openssl rand -hex 32)
      later-reporting serve
    """  # noqa: D301 - click reads the character
    from later_reporting_dagster.client.auth import is_loopback
    from later_reporting_dagster.server.lake_store.app import ServeOptions, lake_app

    project = current_project()
    known_clients, lake = check_all(lambda: _all_clients(clients, no_auth=no_auth), project.later.lake)
    if no_auth and not is_loopback(host):
        raise click.UsageError(f"--no-auth is only possible on a loopback address, not on {host}: configure a client")
    for client in known_clients if not is_loopback(host) else ():
        if len(client.client_secret) < MIN_SECRET_LENGTH:
            raise click.UsageError(
                f"the secret of client {client.client_id!r} can be guessed: to listen on {host}, it must have at least"
                f" {MIN_SECRET_LENGTH} characters, such as those of `openssl rand -hex 32`"
            )
    options = ServeOptions(
        clients=known_clients, api_version=API_VERSIONS.get(api_version), metrics=project.settings.metrics, **settings
    )
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("later_reporting_dagster.server.lake_store").setLevel(logging.INFO)
    comments = [f"Serves {lake.root}"]
    if no_auth:
        comments.append("Numbered pages show the same rows only if one client of an address reads a query at a time")
    _serve(lake_app(lake, options), host=host, port=port, comments=comments)


def _all_clients(listed: tuple[Client, ...], *, no_auth: bool) -> tuple[Client, ...]:
    """Return the client of the environment and those of the file; none with `--no-auth`."""
    client_id, secret = os.environ.get(ID_VARIABLE, ""), os.environ.get(SECRET_VARIABLE, "")
    if bool(client_id) != bool(secret):
        raise click.UsageError(f"{SECRET_VARIABLE if client_id else ID_VARIABLE} is not set: set both, or none")
    clients = (*listed, *([Client(client_id, secret)] if client_id else []))
    if client_id in {client.client_id for client in listed}:
        raise click.UsageError(f"the client of {ID_VARIABLE} is also in the file of clients: omit one of the two")
    if no_auth and clients:
        raise click.UsageError("--no-auth cannot be combined with clients: omit one of the two")
    if not clients and not no_auth:
        raise click.UsageError(
            f"there are no credentials: set {ID_VARIABLE} and {SECRET_VARIABLE}, or --clients; or serve without"
            " authentication to this machine only: --no-auth"
        )
    return clients
