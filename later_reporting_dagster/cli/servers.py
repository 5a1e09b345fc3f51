"""The commands that serve the API until Ctrl-C: `sandbox` over synthetic data, `serve` over the lake."""

import logging
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from starlette.types import ASGIApp

from later_reporting_dagster import sandbox as sandbox_package
from later_reporting_dagster.cli.options import (
    FiniteNumber,
    current_project,
    list_and_exit,
    one_line_errors,
    prefix_errors_with,
    yesterday,
)
from later_reporting_dagster.contract import API_VERSIONS
from later_reporting_dagster.endpoint import Client
from later_reporting_dagster.endpoint import serve as serve_app
from later_reporting_dagster.endpoint.http_server import DEFAULT_PORT
from later_reporting_dagster.endpoint.tokens import parse_clients

# Both commands import HTTPX and DuckDB themselves, which `--help` does not need.

ID_VARIABLE, SECRET_VARIABLE = "LATER_SERVE_CLIENT_ID", "LATER_SERVE_CLIENT_SECRET"  # noqa: S105 - names
MIN_SECRET_LENGTH = 16  # beyond this machine
_AUTO = "auto"

_POSITIVE = FiniteNumber(0, min_open=True)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _host(_context: click.Context, _parameter: click.Parameter, host: str) -> str:
    if not host:
        raise click.UsageError(
            "an empty --host would listen on all addresses: omit --host to listen on this machine only"
        )
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
        serve_app(app, host=host, port=port, on_ready=print_settings)


api_version_option = click.option(
    "--api-version", default="paged", type=click.Choice(list(API_VERSIONS)),
    help="API version that the sandbox serves: paged (numbered pages with totals) or cursor (cursors without"
    " totals; a query names its metrics).",
)  # fmt: skip


@click.command()
@_address_options
@click.option("--seed", default=0, type=click.IntRange(0), help="Seed of the data and of the faults.")
@click.option("--instances", default=8, type=click.IntRange(1), help="Instances, besides two from the API reference.")
@click.option("--posts-per-day", default=20, type=click.IntRange(0), help="Average posts per day and instance.")
@click.option("--latency", "latency_seconds", default=0.0, type=FiniteNumber(0), help="Seconds before a response.")
@click.option("--requests-per-window", default=120, type=click.IntRange(1), help="Rate limit: requests per window.")
@click.option("--window", "window_seconds", default=60.0, type=_POSITIVE, help="Rate limit: seconds per window.")
@click.option("--token-lifetime", "token_lifetime_seconds", default=43_200, type=click.IntRange(1), help="In seconds.")
@api_version_option
@click.option(
    "--fault", "faults", multiple=True, metavar="NAME:PROBABILITY",
    callback=list_and_exit({name: fault.description for name, fault in sandbox_package.FAULTS.items()}),
    help="Inject a fault into a share of the requests, such as http-500:0.03; repeatable. `--fault list` lists all.",
)  # fmt: skip
@click.option(
    "--malformed-row", "malformed_rows", multiple=True, metavar="NAME:SHARE",
    callback=list_and_exit({name: row.description for name, row in sandbox_package.MALFORMATIONS.items()}),
    help="Alter a share of the rows, such as nan:0.01; repeatable. `--malformed-row list` lists all.",
)  # fmt: skip
@click.option(
    "--refuse-campaign-metric", "refused_campaign_metrics", multiple=True, metavar="NAME",
    help="Offer no such metric of campaigns, such as paidAdSpend; repeatable.",
)  # fmt: skip
@one_line_errors
def sandbox(
    *,
    host: str,
    port: int,
    seed: int,
    instances: int,
    posts_per_day: int,
    api_version: str,
    faults: tuple[str, ...],
    malformed_rows: tuple[str, ...],
    **settings: Any,
) -> None:
    """Serve the API locally over synthetic data, until Ctrl-C.

    Prints the days that have posts, and the environment variables that point the
    client at it. To try how a fetch copes with a bad server, inject faults; their
    counts are printed at the end:

    \b
      later-reporting sandbox --fault http-500:0.03 --malformed-row nan:0.01

    A request with the header `X-Sandbox-Faults: off` gets no fault.
    """  # noqa: D301 - click reads the character
    with prefix_errors_with("--fault"):
        fault_rates = sandbox_package.parse_rates(faults, known=sandbox_package.FAULTS, kind="fault")
    with prefix_errors_with("--malformed-row"):
        row_rates = sandbox_package.parse_rates(
            malformed_rows, known=sandbox_package.MALFORMATIONS, kind="malformed row"
        )
    with prefix_errors_with("--refuse-campaign-metric"):
        options = sandbox_package.SandboxOptions(api_version=API_VERSIONS[api_version], **settings)
    world = sandbox_package.World(
        first_day=sandbox_package.two_years_before(yesterday()),
        last_day=yesterday(),
        seed=seed,
        instances=instances,
        posts_per_day=posts_per_day,
        extra_instance_ids=sandbox_package.EXAMPLE_INSTANCE_IDS,
    )
    app = sandbox_package.FaultMiddleware(
        world, faults=fault_rates, malformed_rows=row_rates, seed=seed, options=options
    )
    comments = sandbox_package.BANNER, f"Posts from {world.first_day} to {world.last_day} (UTC); other days are empty."
    credentials = {"LATER_CLIENT_ID": options.client_id, "LATER_CLIENT_SECRET": options.client_secret}
    _serve(app, host=host, port=port, comments=comments, credentials=credentials)
    malformed_counts = {name: len(keys) for name, keys in app.altered.items()}
    for name, count in [*app.injected.items(), *malformed_counts.items()]:
        click.echo(f"{name:<25} {count}")


def _read_clients(_context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[Client, ...]:
    """Return the clients of a TOML file; none without a file."""
    if value is None:
        return ()
    try:
        clients, mode = parse_clients(Path(value).read_text(encoding="utf-8")), Path(value).stat().st_mode
    except OSError as error:
        raise click.BadParameter(f"{value}: {error.strerror}") from error
    except ValueError as error:
        raise click.BadParameter(f"{value}: {error}") from error
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        click.echo(f"{value} can be read by other users of this machine: chmod 600 {value}", err=True)
    return clients


@click.command(context_settings={"auto_envvar_prefix": "LATER_SERVE"})
@_address_options
@click.option("--no-auth", is_flag=True, help="Require no token. Only on a loopback address.")
@click.option(
    "--clients", metavar="FILE", type=click.Path(), callback=_read_clients,
    help="TOML file of several clients, each with its instances.",
)  # fmt: skip
@click.option(
    "--api-version", default=_AUTO, type=click.Choice([_AUTO, *API_VERSIONS]),
    help="API version to serve: paged, cursor, or that of the parameters of each request.",
)  # fmt: skip
@click.option("--strict", is_flag=True, help="Refuse a query with 409 if a file of its days and instances is missing.")
@click.option("--memory-gb", default=1.0, type=FiniteNumber(0.25), help="Memory limit of DuckDB, in GB.")
@click.option("--snapshot-gb", default=8.0, type=_POSITIVE, help="Disk space for the rows of latest queries, in GB.")
@click.option(
    "--snapshot-directory", type=click.Path(file_okay=False, exists=True, writable=True),
    help="Directory of temporary files. Default: that of the system.",
)  # fmt: skip
@one_line_errors
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
    from later_reporting_dagster.serve.app import ServeOptions, lake_app

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
        clients=known_clients, api_version=API_VERSIONS.get(api_version), metrics=project.settings.metrics, **settings
    )
    lake = project.later.lake()
    _log_to_standard_error()
    _serve(lake_app(lake, options), host=host, port=port, comments=[f"Serves {lake.root}"])


def _all_clients(listed: tuple[Client, ...], *, no_auth: bool) -> tuple[Client, ...]:
    """Return the client of the environment and those of the file; none with `--no-auth`."""
    variables = {name: os.environ.get(name, "") for name in (ID_VARIABLE, SECRET_VARIABLE)}
    clients = [*listed]
    if any(variables.values()):
        if missing := [name for name, value in variables.items() if not value]:
            raise click.UsageError(f"{missing[0]} is not set: set it too, or unset the other one of the pair")
        if variables[ID_VARIABLE] in {client.client_id for client in listed}:
            raise click.UsageError(f"the client of {ID_VARIABLE} is also in the file of clients: omit one of the two")
        clients.append(Client(variables[ID_VARIABLE], variables[SECRET_VARIABLE]))
    if no_auth and clients:
        raise click.UsageError("--no-auth cannot be combined with clients: omit one of the two")
    if not clients and not no_auth:
        raise click.UsageError(
            f"there are no credentials: set {ID_VARIABLE} and {SECRET_VARIABLE}, or --clients; or serve without"
            " authentication to this machine only: --no-auth"
        )
    return tuple(clients)


def _log_to_standard_error() -> None:
    """Print the log of the server, and nothing of other loggers."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("later_reporting_dagster.serve")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
