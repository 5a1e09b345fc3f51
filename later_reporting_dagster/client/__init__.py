"""Speaks the contract over HTTP: token, rate limit, retry, page walk. No Dagster, and no files but the limiter's."""

from later_reporting_dagster.client.auth import AccessToken, ClientCredentials
from later_reporting_dagster.client.client import LaterClient, Probe
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
from later_reporting_dagster.client.limiter import RateLimiter, next_slot, shared_state_path
from later_reporting_dagster.client.memory import RevisionMemory, remembered_revision_path
from later_reporting_dagster.client.retry import RetryPolicy
from later_reporting_dagster.client.trail import Reach
from later_reporting_dagster.client.walk import Walk, problem_of

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
    "Probe",
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
    "next_slot",
    "problem_of",
    "remembered_revision_path",
    "shared_state_path",
]
