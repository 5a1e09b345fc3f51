"""The configurable resource: from settings to a client of the API and a lake to land in."""

import os
from collections.abc import Callable
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
    shared_state_path,
)
from later_reporting_dagster.defs.settings import (
    DEFAULT_BASE_URL,
    DEFAULT_REQUESTS_PER_MINUTE,
    default_lake_root,
    from_environment,
)
from later_reporting_dagster.lake import Lake


class LaterReportingResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Later's Reporting API and the lake that its posts land in.

    Every field can be given in code, in the Launchpad, or by the environment variable `LATER_` and its name.
    """

    base_url: str = Field(default=DEFAULT_BASE_URL, description="Where the API is. https, but for loopback.")
    client_id: str = Field(default="", description="Client id of the API credentials.", repr=False)
    client_secret: str = Field(default="", description="Client secret of the API credentials.", repr=False)
    access_token: str = Field(
        default="", description="A ready bearer token, used instead of client id and secret.", repr=False
    )
    instance_ids: str = Field(
        default="", description="Instances to work on, comma-separated. Empty: all that the credentials reach."
    )
    lake_root: str = Field(
        default_factory=default_lake_root, description="Where partitions lie: any fsspec URL.", repr=False
    )
    requests_per_minute: int = Field(
        default=DEFAULT_REQUESTS_PER_MINUTE, description="Never ask more often than this, all processes together."
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
                Field(default={"env": f"LATER_{name.upper()}"}, description=field.description, repr=field.repr),
            )
            for name, field in cls.model_fields.items()
            if os.environ.get(f"LATER_{name.upper()}")
        }
        return create_model(cls.__name__, __base__=cls, **fields)(**values)

    def credentials(self) -> ClientCredentials | AccessToken:
        """A ready token where there is one, else client id and secret.

        Raises:
            ValueError: neither is set.
        """
        if self.access_token:
            return AccessToken(self.access_token)
        if self.client_id and self.client_secret:
            return ClientCredentials(client_id=self.client_id, client_secret=self.client_secret)
        raise ValueError("no credentials: set LATER_CLIENT_ID and LATER_CLIENT_SECRET, or LATER_ACCESS_TOKEN")

    def client(
        self, *, on_event: Callable[[ClientEvent], None] | None = None, retry: RetryPolicy | None = None
    ) -> LaterClient:
        """A client that shares its rate limit with all processes of this machine.

        Raises:
            ValueError: a setting is missing or wrong; the message says which and what to do.
        """
        return LaterClient(
            base_url=self.base_url,
            credentials=self.credentials(),
            limiter=RateLimiter(requests=self.requests_per_minute, state_path=shared_state_path(self.base_url)),
            on_event=on_event,
            retry=retry or RetryPolicy(),
        )

    def lake(self) -> Lake:
        """The lake under `lake_root`."""
        return Lake(self.lake_root)

    def named_instances(self) -> tuple[str, ...]:
        """The instances that the settings name; none when all within reach are meant."""
        return tuple(name.strip() for name in self.instance_ids.split(",") if name.strip())

    async def wanted_instances(self) -> tuple[str, ...]:
        """The instances to work on: those that the settings name, else all that the credentials reach."""
        if named := self.named_instances():
            return named
        async with self.client() as client:
            return await client.instances()
