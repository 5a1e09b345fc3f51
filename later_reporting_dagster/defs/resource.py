"""The configurable resource: from settings to a client of the API and a lake to land in."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from pydantic import Field, create_model

from later_reporting_dagster.client import (
    AccessToken,
    ClientCredentials,
    ClientEvent,
    LaterClient,
    RateLimiter,
    RetryPolicy,
    RevisionMemory,
    remembered_revision_path,
    shared_state_path,
)
from later_reporting_dagster.contract import REVISIONS, Metric, Revision, metrics_named
from later_reporting_dagster.defs.settings import (
    AUTO,
    BOUNDS,
    DEFAULT_BASE_URL,
    DEFAULT_MEMORY_GB,
    DEFAULT_REQUESTS_PER_MINUTE,
    DEFAULT_SECOND_LOOK_PERCENT,
    check_memory_gb,
    default_lake_root,
    from_environment,
)
from later_reporting_dagster.ingest.write_guard import Guard
from later_reporting_dagster.lake import Lake, encode_instance_id

# What the UI masks. A run's config is kept as it was typed, so what belongs in no database is given by its name.
_SECRET: dict[str, Any] = {"dagster__is_secret": True}
_BY_NAME = "In the Launchpad, name a variable that holds it: Dagster keeps what is typed there."


class SettingIsWrong(dg.Failure, ValueError):  # noqa: N818 - named for what it is
    """A setting that only its user can mend. One line names it, by its variable and its field, and says what to do.

    A run shows that line as its failure, and nothing that would come to the same end again.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, allow_retries=False)


class LaterReportingResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Later's Reporting API, and the lake that its posts are written to.

    Every field can be given in code, in the Launchpad, or by the environment variable `LATER_` and its name.
    """

    base_url: str = Field(default=DEFAULT_BASE_URL, description="Where the API is. https, but for loopback.")
    client_id: str = Field(default="", description="Client id of the API credentials.", repr=False)
    client_secret: str = Field(
        default="",
        description=f"Client secret of the API credentials. {_BY_NAME}",
        repr=False,
        json_schema_extra=_SECRET,
    )
    access_token: str = Field(
        default="",
        description=f"A ready bearer token, used instead of client id and secret. {_BY_NAME}",
        repr=False,
        json_schema_extra=_SECRET,
    )
    instance_ids: str = Field(
        default="", description="Instances to fetch, comma-separated. Empty: all that the API lists."
    )
    lake_root: str = Field(
        default_factory=default_lake_root, description="Where partitions lie: any fsspec URL.", repr=False
    )
    metrics: str = Field(
        default="",
        description="Metrics to ask for, by the names of the API or of columns, comma-separated; all: all that are"
        " known. Empty: the document's eleven, which are all that come without being asked for.",
    )
    requests_per_minute: int = Field(
        default=DEFAULT_REQUESTS_PER_MINUTE, description="Never ask more often than this, all processes together."
    )
    api_revision: str = Field(
        default=AUTO,
        description="Which revision of the API the service speaks: paged, cursor, or auto to have it tell itself.",
    )
    second_look_percent: int | None = Field(
        default=None,
        description="How many of 100 answers are fetched twice, to see whether the same rows come; with totals, of"
        " those of several pages. Each costs its requests. Not set: 1 without totals, none with them.",
    )
    shrink_limit_percent: int = Field(
        default=50,
        description="How many of 100 posts of a partition a new answer may take away; 100 lets all of them go.",
    )
    bad_rows_limit_percent: int = Field(
        default=100,
        description="How many of 100 rows of a partition may be bad, or else it fails; 100 only sets them aside.",
    )
    memory_gb: float = Field(
        default=DEFAULT_MEMORY_GB,
        description="How many GB of memory a rollup or the report may take; what exceeds them is spilled to the disk.",
    )

    @classmethod
    def from_environment(cls) -> "LaterReportingResource":
        """The resource as the environment describes it; needs none of it to be there, and reads no secret yet."""
        values = {
            name: from_environment(f"LATER_{name.upper()}", field.get_default(call_default_factory=True))
            for name, field in cls.model_fields.items()
        }
        # A Launchpad that gives one field takes all others from the defaults of their fields, and not from these
        # values: so what the environment gives has to be their default too.
        fields: dict[str, Any] = {
            name: (
                field.annotation,
                Field(
                    default=values[name] if isinstance(values[name], float) else {"env": f"LATER_{name.upper()}"},
                    description=field.description,
                    repr=field.repr,
                    json_schema_extra=field.json_schema_extra,
                ),
            )
            for name, field in cls.model_fields.items()
            if os.environ.get(f"LATER_{name.upper()}")
        }
        model = create_model(cls.__name__, __base__=cls, **fields)
        # The Launchpad shows the docstring, which a created model does not inherit.
        model.__doc__ = cls.__doc__
        return model(**values)

    def credentials(self) -> ClientCredentials | AccessToken:
        """A ready token where there is one, else client id and secret.

        Raises:
            SettingIsWrong: neither is set, or it holds what no credential does.
        """
        if self.access_token:
            with _named("access_token"):
                return AccessToken(self.access_token)
        if not (self.client_id and self.client_secret):
            half = "LATER_CLIENT_SECRET" if self.client_id else "LATER_CLIENT_ID" if self.client_secret else None
            raise SettingIsWrong(
                "no credentials: set LATER_CLIENT_ID and LATER_CLIENT_SECRET, or LATER_ACCESS_TOKEN"
                + (f" ({half} is empty)" if half else "")
            )
        with _named("client_id", "client_secret"):
            return ClientCredentials(client_id=self.client_id, client_secret=self.client_secret)

    def client(
        self, *, on_event: Callable[[ClientEvent], None] | None = None, retry: RetryPolicy | None = None
    ) -> LaterClient:
        """A client that shares its rate limit with all processes of this machine.

        Raises:
            SettingIsWrong: a setting is missing or wrong; the message says which and what to do.
        """
        with _named("base_url"):
            state_path = shared_state_path(self.base_url)
            memory = RevisionMemory(remembered_revision_path(self.base_url))
        requests_per_minute = self._within_bounds("requests_per_minute")
        return LaterClient(
            base_url=self.base_url,
            credentials=self.credentials(),
            limiter=RateLimiter(requests=requests_per_minute, state_path=state_path),
            revision=self.revision(),
            memory=memory,
            second_looks=self._second_looks(),
            on_event=on_event,
            retry=retry or RetryPolicy(),
        )

    def _second_looks(self) -> dict[Revision, float]:
        percents = dict(DEFAULT_SECOND_LOOK_PERCENT)
        if self.second_look_percent is not None:
            percents = dict.fromkeys(percents, self._within_bounds("second_look_percent"))
        return {revision: percent / 100 for revision, percent in percents.items()}

    def revision(self) -> Revision | None:
        """The revision of the API that is set; None when the service is to tell.

        Raises:
            SettingIsWrong: there is no such revision.
        """
        with _named("api_revision"):
            if self.api_revision not in (AUTO, *REVISIONS):
                raise ValueError(f"{AUTO} or one of {', '.join(REVISIONS)}, not {self.api_revision!r}")
        return REVISIONS.get(self.api_revision)

    def lake(self) -> Lake:
        """The lake under `lake_root`.

        Raises:
            SettingIsWrong: no lake can be there.
            LakeUnavailable: its filesystem cannot be reached.
        """
        with _named("lake_root"):
            _check_lake_root(self.lake_root)
            return Lake(self.lake_root)

    def memory_limit_gb(self) -> float:
        """How much memory SQL over the lake may take in all, in GB.

        Raises:
            SettingIsWrong: it is too little to work with.
        """
        with _named("memory_gb"):
            check_memory_gb(self.memory_gb)
        return self.memory_gb

    def guard(self, *, accept_shrinking: bool = False) -> Guard:
        """Return what a response may take from the lake, all of it with `accept_shrinking`, and how much may be bad.

        Raises:
            SettingIsWrong: a limit is no percentage.
        """
        shrink_limit_percent = self._within_bounds("shrink_limit_percent")
        return Guard(
            shrink_limit_percent=100 if accept_shrinking else shrink_limit_percent,
            bad_rows_limit_percent=self._within_bounds("bad_rows_limit_percent"),
        )

    def selected_metrics(self) -> tuple[Metric, ...]:
        """The metrics to ask for, in the order of their columns.

        Raises:
            SettingIsWrong: a name is not of a metric that is known.
        """
        with _named("metrics"):
            return metrics_named(self.metrics)

    def named_instances(self) -> tuple[str, ...]:
        """The instances that the settings name, each once; none when all within reach are meant.

        Raises:
            SettingIsWrong: an id cannot be a partition, or something is there and it names none.
        """
        names = tuple(dict.fromkeys(name.strip() for name in self.instance_ids.split(",") if name.strip()))
        with _named("instance_ids"):
            if self.instance_ids and not names:
                raise ValueError(f"{self.instance_ids!r} names no instance: leave it empty to mean all within reach")
            for name in names:
                encode_instance_id(name)
        return names

    async def listed_instances(self) -> tuple[str, ...]:
        """Return the instances that the API lists, each once, with one request per 100.

        Raises:
            SettingIsWrong: a setting is missing or wrong; the message says which and what to do.
            LaterError: the API does not list them.
        """
        async with self.client() as client:
            return await client.instances()

    def _within_bounds(self, field: str) -> int:
        value: int = getattr(self, field)
        least, most = BOUNDS[field]
        with _named(field):
            if not least <= value <= most:
                raise ValueError(f"a whole number from {least} to {most}, not {value}")
        return value


@contextmanager
def _named(*fields: str) -> Iterator[None]:
    """Names the settings that what goes wrong is about, as whoever set them knows them."""
    try:
        yield
    except ValueError as error:
        names = ", ".join(f"LATER_{field.upper()} ({field})" for field in fields)
        raise SettingIsWrong(f"{names}: {error}") from None


def _check_lake_root(root: str) -> None:
    """Refuses what would silently become a folder of a strange name.

    Raises:
        ValueError: it has a control character, as a line's end, spaces around it, or a URL's scheme and no host.
    """
    if root.strip() and (root != root.strip() or any(character < " " for character in root)):
        raise ValueError("it has a line break, another control character or spaces around it: give it without")
    if re.match(r"(?!file:|local:)[A-Za-z][A-Za-z0-9+.-]+:/(?!/)", root):
        raise ValueError("a URL has two slashes after its scheme, as s3://bucket/lake")
