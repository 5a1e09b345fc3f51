"""Speaks the contract over HTTP: token, rate limit, retry, page walk. No Dagster, and no files but the limiter's."""

from later_reporting_dagster.client.auth import AccessToken, ClientCredentials
from later_reporting_dagster.client.client import LaterClient
from later_reporting_dagster.client.errors import (
    ContractBroken,
    CredentialsRejected,
    InstanceForbidden,
    LaterError,
    MetricsRefused,
    QueryRefused,
    Retriable,
    TooManyPosts,
    WalkInconsistent,
)
from later_reporting_dagster.client.events import (
    ClientEvent,
    PageFetched,
    Retried,
    RevisionChanged,
    Waited,
    WalkRepeated,
)
from later_reporting_dagster.client.limiter import RateLimiter, shared_state_path
from later_reporting_dagster.client.memory import RevisionMemory, remembered_revision_path
from later_reporting_dagster.client.retry import RetryPolicy
from later_reporting_dagster.client.trail import Reach
from later_reporting_dagster.client.walk import Walk

__all__ = [
    "AccessToken",
    "ClientCredentials",
    "ClientEvent",
    "ContractBroken",
    "CredentialsRejected",
    "InstanceForbidden",
    "LaterClient",
    "LaterError",
    "MetricsRefused",
    "PageFetched",
    "QueryRefused",
    "RateLimiter",
    "Reach",
    "Retriable",
    "Retried",
    "RetryPolicy",
    "RevisionChanged",
    "RevisionMemory",
    "TooManyPosts",
    "Waited",
    "Walk",
    "WalkInconsistent",
    "WalkRepeated",
    "remembered_revision_path",
    "shared_state_path",
]
