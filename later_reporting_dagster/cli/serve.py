"""The command `later-reporting serve`."""

import logging
import os
import stat
from pathlib import Path

import click
from starlette.types import ASGIApp

from later_reporting_dagster.cli.options import (
    FiniteNumber,
    check_host,
    current_project,
    one_line_errors,
    prefix_errors_with,
)
from later_reporting_dagster.contract import API_VERSIONS
from later_reporting_dagster.endpoint import Client, serve
from later_reporting_dagster.endpoint.http_server import DEFAULT_PORT
from later_reporting_dagster.serve.client_file import check_clients, parse_clients

ID_VARIABLE, SECRET_VARIABLE = "LATER_SERVE_CLIENT_ID", "LATER_SERVE_CLIENT_SECRET"  # noqa: S105 - names
_AUTO = "auto"
MIN_SECRET_LENGTH = 16  # beyond this machine


class _ClientFile(click.ParamType):  # type: ignore[type-arg]
    """A TOML file of clients."""

    name = "FILE"

    def convert(
        self, value: str | tuple[Client, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Client, ...]:
        """Return the clients, or fail with a usage error."""
        if isinstance(value, tuple):
            return value
        try:
            clients, mode = parse_clients(Path(value).read_text(encoding="utf-8")), Path(value).stat().st_mode
        except OSError as error:
            self.fail(f"{value}: {error.strerror}", param, ctx)
        except ValueError as error:
            self.fail(f"{value}: {error}", param, ctx)
        if mode & (stat.S_IRGRP | stat.S_IROTH):
            click.echo(f"{value} can be read by other users of this machine: chmod 600 {value}", err=True)
        return clients


@click.command("serve", context_settings={"auto_envvar_prefix": "LATER_SERVE", "show_default": True})
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option(
    "--port", default=DEFAULT_PORT, type=click.IntRange(0, 65_535), help="Port to listen on; 0 picks a free one."
)
@click.option("--no-auth", is_flag=True, help="Require no token. Only on a loopback address.")
@click.option(
    "--clients", default=(), type=_ClientFile(), help="TOML file of several clients, each with its instances."
)
@click.option(
    "--api-version", default=_AUTO, type=click.Choice([_AUTO, *API_VERSIONS]),
    help="API version to serve: paged, cursor, or that of the parameters of each request.",
)  # fmt: skip
@click.option("--strict", is_flag=True, help="Refuse a query with 409 if a file of its days and instances is missing.")
@click.option(
    "--requests-per-window", type=click.IntRange(1), help="Limit the requests of an IP address. Default: no limit."
)
@click.option("--window", default=60.0, type=FiniteNumber(0, min_open=True), help="Seconds per window.")
@click.option("--memory-gb", default=1.0, type=FiniteNumber(0.25), help="Memory limit of DuckDB, in GB.")
@click.option(
    "--snapshot-gb", default=8.0, type=FiniteNumber(0, min_open=True),
    help="Disk space for the rows of the latest queries, in GB.",
)  # fmt: skip
@click.option(
    "--snapshot-directory", type=click.Path(file_okay=False, exists=True, writable=True),
    help="Directory of temporary files. Default: that of the system.",
)  # fmt: skip
@one_line_errors
def serve_command(
    *,
    host: str,
    port: int,
    no_auth: bool,
    clients: tuple[Client, ...],
    api_version: str,
    strict: bool,
    requests_per_window: int | None,
    window: float,
    memory_gb: float,
    snapshot_gb: float,
    snapshot_directory: str | None,
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
    # They import HTTPX and DuckDB, which other commands and `--help` do not need.
    from later_reporting_dagster.client.auth import is_loopback
    from later_reporting_dagster.serve.app import ServeOptions, lake_app

    check_host(host)
    known_clients = _all_clients(clients, no_auth=no_auth)
    if no_auth and not is_loopback(host):
        raise click.UsageError(f"--no-auth is only possible on a loopback address, not on {host}: configure a client")
    for client in known_clients if not is_loopback(host) else ():
        if len(client.client_secret) < MIN_SECRET_LENGTH:
            raise click.UsageError(
                f"the secret of client {client.client_id!r} can be guessed: to listen on {host}, it must have at least"
                f" {MIN_SECRET_LENGTH} characters, such as those of `openssl rand -hex 32`"
            )
    project = current_project()
    options = ServeOptions(
        clients=known_clients,
        api_version=API_VERSIONS.get(api_version),
        requests_per_window=requests_per_window,
        window_seconds=window,
        strict=strict,
        metrics=project.settings.metrics,
        memory_gb=memory_gb,
        snapshot_gb=snapshot_gb,
        snapshot_directory=snapshot_directory,
    )
    lake = project.later.lake()
    _serve(lake_app(lake, options), lake_root=lake.root, host=host, port=port)


def _serve(app: ASGIApp, *, lake_root: str, host: str, port: int) -> None:
    """Serve the application until interrupted; print its URL, so that a shell can evaluate it, and log its requests."""
    from later_reporting_dagster.client.auth import is_loopback

    _log_to_standard_error()

    def print_settings(base_url: str) -> None:
        click.echo(f"# Serves {lake_root}")
        click.echo(f"export LATER_BASE_URL={base_url}")
        if not is_loopback(host):
            click.echo("Clients on other machines need https: put a proxy with TLS before this server.", err=True)

    with prefix_errors_with("--host, --port"):
        serve(app, host=host, port=port, on_ready=print_settings)


def _all_clients(listed: tuple[Client, ...], *, no_auth: bool) -> tuple[Client, ...]:
    """Return the client of the environment and those of the file; none with `--no-auth`.

    Raises:
        click.UsageError: There is none without `--no-auth`, or some with it.
        ValueError: They are incomplete.
    """
    variables = {name: os.environ.get(name, "") for name in (ID_VARIABLE, SECRET_VARIABLE)}
    clients = [*listed]
    if any(variables.values()):
        if missing := [name for name, value in variables.items() if not value]:
            raise click.UsageError(f"{missing[0]} is not set: set it too, or unset the other one of the pair")
        clients.append(Client(variables[ID_VARIABLE], variables[SECRET_VARIABLE]))
    if no_auth and clients:
        raise click.UsageError("--no-auth cannot be combined with clients: omit one of the two")
    if not clients and not no_auth:
        raise click.UsageError(
            f"there are no credentials: set {ID_VARIABLE} and {SECRET_VARIABLE}, or --clients; or serve without"
            " authentication to this machine only: --no-auth"
        )
    return check_clients(clients) if clients else ()


def _log_to_standard_error() -> None:
    """Print the log of the server, and nothing of other loggers."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("later_reporting_dagster.serve")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
