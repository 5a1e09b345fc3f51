"""The resource: settings for the API client and the lake."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from pydantic import Field, create_model

from later_reporting_dagster.client import (
    AccessToken,
    ClientCredentials,
    ClientEvent,
    InstanceForbidden,
    LaterClient,
    ListResult,
    RateLimiter,
    RetryPolicy,
    rate_limit_store,
)
from later_reporting_dagster.client.auth import validate_base_url
from later_reporting_dagster.contract import API_VERSIONS, ApiVersion, Metric, parse_campaign_metrics, parse_metrics
from later_reporting_dagster.contract.days import newest_day
from later_reporting_dagster.defs.settings import (
    AUTO,
    BOUNDS,
    DEFAULT_BASE_URL,
    DEFAULT_MEMORY_GB,
    DEFAULT_REQUESTS_PER_MINUTE,
    DEFAULT_VERIFY_PERCENT,
    MAX_REQUESTS_PER_MINUTE,
    check_memory_gb,
    default_lake_root,
    environment_values,
    resolve_storage_options,
    variable_name,
)
from later_reporting_dagster.ingest.write_guard import WriteGuard
from later_reporting_dagster.lake import Lake, encode_instance_id
from later_reporting_dagster.sandbox import DemoSandbox, demo_sandbox

# The UI masks secrets, but Dagster stores a run's config as it was typed.
_SECRET: dict[str, Any] = {"dagster__is_secret": True}
_USE_ENV = "In the Launchpad, use an environment variable: Dagster stores what is typed there."


class InvalidSetting(dg.Failure, ValueError):  # noqa: N818 - a Dagster failure
    """A setting is missing or invalid. The message names its environment variable and its field, and the fix.

    In a run it is a failure that is not retried, because a retry would fail the same way.

    Attributes:
        fields: the fields of the resource that the message is about.
    """

    def __init__(self, message: str, *, fields: Sequence[str] = ()) -> None:
        super().__init__(message, allow_retries=False)
        self.fields = tuple(fields)


class LaterReportingResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Later's Reporting API, and the lake that its posts are written to.

    Set each field in code, in the Launchpad, or by its environment variable: `LATER_CLIENT_ID` for `client_id`.

    Example:
        >>> later = LaterReportingResource(instance_ids="acme, globex", lake_root="/data/later")
        >>> later.configured_instances()
        ('acme', 'globex')
    """

    base_url: str = Field(
        default=DEFAULT_BASE_URL, description="URL of the API. http is allowed for this machine only."
    )
    client_id: str = Field(default="", description="Client id of the API credentials.", repr=False)
    client_secret: str = Field(
        default="",
        description=f"Client secret of the API credentials. {_USE_ENV}",
        repr=False,
        json_schema_extra=_SECRET,
    )
    access_token: str = Field(
        default="",
        description=f"A bearer token to use instead of client id and secret. {_USE_ENV}",
        repr=False,
        json_schema_extra=_SECRET,
    )
    instance_ids: str = Field(
        default="", description="Instances to fetch, comma-separated. Empty: all that the API lists."
    )
    lake_root: str = Field(
        default_factory=default_lake_root, description="Directory or fsspec URL of the lake.", repr=False
    )
    storage_options: dict[str, Any] = Field(
        default={},
        description="Options of the fsspec filesystem of the lake, such as endpoint and credentials; not used for a"
        f' local directory. {{"env": "NAME"}} in place of a value is read from that variable. {_USE_ENV}',
        repr=False,
        json_schema_extra=_SECRET,
    )
    metrics: str = Field(
        default="",
        description="Metrics to request, comma-separated, by API or column name; `all` for every known metric."
        " Empty: the eleven that the paged API version returns.",
    )
    campaign_metrics: str = Field(
        default="",
        description="Metrics of campaigns to request, comma-separated, by API or column name; `all` for every known"
        " metric. Empty: spend, return and links.",
    )
    requests_per_minute: int = Field(
        default=DEFAULT_REQUESTS_PER_MINUTE,
        description="Maximum requests per minute, shared by all processes that use the same rate_limit_store.",
    )
    rate_limit_store: str = Field(
        default="",
        description="Where machines behind one IP address share the rate limit: postgresql://…. Empty:"
        f" only the processes of a user on this machine share it. {_USE_ENV}",
        repr=False,
        json_schema_extra=_SECRET,
    )
    api_version: str = Field(default=AUTO, description="API version: paged, cursor, or auto to detect it.")
    verify_percent: int | None = Field(
        default=None,
        description="Percentage of queries to fetch twice, to verify that both fetches return the same rows; in the"
        " paged API version only queries of several pages. Default: 1 in the cursor API version, 0 in the paged one.",
    )
    shrink_limit_percent: int = Field(
        default=50,
        description="Percentage of a file's posts that a new fetch may remove before it fails. 100: no limit, and a"
        " fetch may also remove all values of a file's metrics.",
    )
    bad_rows_limit_percent: int = Field(
        default=100,
        description="Percentage of a file's rows that may be bad before it fails. 100: only quarantine them.",
    )
    memory_gb: float = Field(
        default=DEFAULT_MEMORY_GB,
        description="Memory limit in GB for a rollup or the report. What exceeds it is spilled to disk.",
    )

    demo_mode: bool = Field(
        default=False, description="Use the sandbox with synthetic data in place of the API, without credentials."
    )

    @classmethod
    def from_environment(cls) -> "LaterReportingResource":
        """Return the resource with every set environment variable as an `EnvVar`.

        No variable is required, and no secret is read yet.

        Raises:
            ValueError: a number is invalid.
        """
        return cls.with_defaults(environment_values(cls.model_fields))

    @classmethod
    def with_defaults(cls, values: Mapping[str, Any]) -> "LaterReportingResource":
        """Return the resource with these values of its fields.

        If the Launchpad sets one field, Dagster fills the others with the defaults of the class. So `values` become the
        defaults of a subclass, except for secrets that are not an `EnvVar`, because the UI shows defaults.

        Args:
            values: values, or environment variables, by field.

        Raises:
            pydantic.ValidationError: a value has the wrong type.
        """
        fields: dict[str, Any] = {}
        for name, value in values.items():
            field = cls.model_fields[name]
            variable = variable_name(value)
            if variable is None and field.json_schema_extra == _SECRET:
                continue
            fields[name] = (
                field.annotation,
                Field(
                    default=value if variable is None else {"env": variable},
                    description=field.description,
                    repr=field.repr,
                    json_schema_extra=field.json_schema_extra,
                ),
            )
        model = create_model(cls.__name__, __base__=cls, **fields)
        # The Launchpad shows the docstring, which a created model does not inherit.
        model.__doc__ = cls.__doc__
        return model(**values)

    def credentials(self) -> ClientCredentials | AccessToken:
        """Return the access token if one is set, else client id and secret.

        Raises:
            InvalidSetting: neither is set, or one contains invalid characters.
        """
        if self.demo_mode:
            sandbox = self._demo_sandbox()
            return ClientCredentials(client_id=sandbox.client_id, client_secret=sandbox.client_secret)
        if self.access_token:
            with _invalid_setting("access_token"):
                return AccessToken(self.access_token)
        if not (self.client_id and self.client_secret):
            empty = "LATER_CLIENT_SECRET" if self.client_id else "LATER_CLIENT_ID" if self.client_secret else None
            raise InvalidSetting(
                "no credentials: set LATER_CLIENT_ID and LATER_CLIENT_SECRET, or LATER_ACCESS_TOKEN"
                + (f" ({empty} is empty)" if empty else ""),
                fields=["client_id", "client_secret", "access_token"],
            )
        with _invalid_setting("client_id", "client_secret"):
            return ClientCredentials(client_id=self.client_id, client_secret=self.client_secret)

    def client(
        self, *, on_event: Callable[[ClientEvent], None] | None = None, retry: RetryPolicy | None = None
    ) -> LaterClient:
        """Return a client that shares its rate limit with all processes that use the same `rate_limit_store`.

        Args:
            on_event: called for pages, waits and retries.
            retry: how often failed requests are retried; the client's default if None.

        Raises:
            InvalidSetting: a setting is missing or invalid.
        """
        with _invalid_setting("base_url"):
            base_url = validate_base_url(self.api_url())
        requests = MAX_REQUESTS_PER_MINUTE if self.demo_mode else self._within_bounds("requests_per_minute")
        with _invalid_setting("rate_limit_store"):
            # The sandbox of the demo mode has another port in every process, and no limit to share.
            store = None if self.demo_mode else rate_limit_store(self.rate_limit_store, base_url=base_url)
        return LaterClient(
            base_url=base_url,
            credentials=self.credentials(),
            limiter=RateLimiter(requests=requests, store=store),
            api_version=self.selected_api_version(),
            verification_rates=self._verification_rates(),
            on_event=on_event,
            retry=retry or RetryPolicy(),
        )

    def api_url(self) -> str:
        """Return the URL of the API; in demo mode that of the sandbox, which is started if necessary."""
        return self._demo_sandbox().base_url if self.demo_mode else self.base_url

    def selected_api_version(self) -> ApiVersion | None:
        """Return the configured API version; None to detect it.

        Raises:
            InvalidSetting: there is no such API version.
        """
        with _invalid_setting("api_version"):
            if self.api_version not in (AUTO, *API_VERSIONS):
                raise ValueError(f"must be {AUTO}, {' or '.join(API_VERSIONS)}, not {self.api_version!r}")
        return API_VERSIONS.get(self.api_version)

    def lake(self) -> Lake:
        """Return the lake under `lake_root`.

        Raises:
            InvalidSetting: `lake_root` is not a directory or URL, or `storage_options` are invalid.
            LakeUnavailable: its filesystem cannot be reached.
        """
        with _invalid_setting("storage_options"):
            options = resolve_storage_options(self.storage_options)
        with _invalid_setting("lake_root"):
            _check_lake_root(self.lake_root)
            return Lake(self.lake_root, storage_options=options)

    def memory_limit_gb(self) -> float:
        """Return the memory limit of a rollup or the report, in GB.

        Raises:
            InvalidSetting: it is too small.
        """
        with _invalid_setting("memory_gb"):
            check_memory_gb(self.memory_gb)
        return self.memory_gb

    def write_guard(self, *, accept_shrinking: bool = False) -> WriteGuard:
        """Return the guard that rejects suspicious responses before they replace files.

        Args:
            accept_shrinking: allow any number of posts, and all values of the metrics, to be removed.

        Raises:
            InvalidSetting: a limit is not between 0 and 100.
        """
        shrink_limit_percent = self._within_bounds("shrink_limit_percent")
        return WriteGuard(
            shrink_limit_percent=100 if accept_shrinking else shrink_limit_percent,
            bad_rows_limit_percent=self._within_bounds("bad_rows_limit_percent"),
        )

    def selected_metrics(self) -> tuple[Metric, ...]:
        """Return the metrics to request, in the order of their columns.

        Raises:
            InvalidSetting: a metric is unknown.
        """
        with _invalid_setting("metrics"):
            return parse_metrics(self.metrics)

    def selected_campaign_metrics(self) -> tuple[Metric, ...]:
        """Return the metrics of campaigns to request, in the order of their columns.

        Raises:
            InvalidSetting: a metric is unknown.
        """
        with _invalid_setting("campaign_metrics"):
            return parse_campaign_metrics(self.campaign_metrics)

    def configured_instances(self) -> tuple[str, ...]:
        """Return the instances named in `instance_ids`, without duplicates; empty if all instances are to be fetched.

        Raises:
            InvalidSetting: an id cannot be used in a path, or `instance_ids` is not empty and names no instance.
        """
        names = tuple(dict.fromkeys(name.strip() for name in self.instance_ids.split(",") if name.strip()))
        with _invalid_setting("instance_ids"):
            if self.instance_ids and not names:
                raise ValueError(f"{self.instance_ids!r} names no instance: leave it empty to fetch all")
            for name in names:
                encode_instance_id(name)
        return names

    async def listed_instances(self) -> tuple[str, ...]:
        """Fetch the instances that the API lists, without duplicates; one request per 100.

        Raises:
            InvalidSetting: a setting is missing or invalid.
            LaterError: the request failed.
        """
        async with self.client() as client:
            return await client.fetch_instances()

    async def fetch_campaigns(self, instance_ids: tuple[str, ...]) -> ListResult:
        """Fetch the campaigns of some instances, or of all if there are none; one request per 100 campaigns.

        If the credentials cannot read one of the instances, it fetches those of all instances that they can read.

        Raises:
            InvalidSetting: a setting is missing or invalid.
            LaterError: the request failed.
        """
        async with self.client() as client:
            try:
                return await client.fetch_campaigns(instance_ids)
            except InstanceForbidden:
                if not instance_ids:
                    raise
                return await client.fetch_campaigns()

    def _demo_sandbox(self) -> DemoSandbox:
        return demo_sandbox(newest_day(datetime.now(UTC)))

    def _verification_rates(self) -> dict[ApiVersion, float]:
        """Return the rate of queries to verify, from 0 to 1, by API version."""
        percents = dict(DEFAULT_VERIFY_PERCENT)
        if self.verify_percent is not None:
            percents = dict.fromkeys(percents, self._within_bounds("verify_percent"))
        return {version: percent / 100 for version, percent in percents.items()}

    def _within_bounds(self, field: str) -> int:
        value: int = getattr(self, field)
        minimum, maximum = BOUNDS[field]
        with _invalid_setting(field):
            if not minimum <= value <= maximum:
                raise ValueError(f"must be a whole number from {minimum} to {maximum}, not {value}")
        return value


@contextmanager
def _invalid_setting(*fields: str) -> Iterator[None]:
    """Convert a ValueError to an `InvalidSetting` that names the environment variables and fields."""
    try:
        yield
    except ValueError as error:
        names = ", ".join(f"LATER_{field.upper()} ({field})" for field in fields)
        raise InvalidSetting(f"{names}: {error}", fields=fields) from None


def _check_lake_root(root: str) -> None:
    """Check that `root` would not silently become a local folder with a strange name.

    Raises:
        ValueError: it contains a control character, has spaces around it, or is a URL with a single slash.
    """
    if root.strip() and (root != root.strip() or any(character < " " for character in root)):
        raise ValueError("remove line breaks, other control characters, and spaces at its start and end")
    if re.match(r"(?!file:|local:)[A-Za-z][A-Za-z0-9+.-]+:/(?!/)", root):
        raise ValueError("a URL has two slashes after its scheme, as in s3://bucket/lake")
