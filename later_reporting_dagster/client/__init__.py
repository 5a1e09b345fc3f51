"""Speaks the contract over HTTP: token, rate limit, retry, page walk. No Dagster, and no files but the limiter's."""

from later_reporting_dagster.client.auth import AccessToken as AccessToken
from later_reporting_dagster.client.auth import ClientCredentials as ClientCredentials
from later_reporting_dagster.client.client import LaterClient as LaterClient
from later_reporting_dagster.client.client_events import ClientEvent as ClientEvent
from later_reporting_dagster.client.client_events import PageFetched as PageFetched
from later_reporting_dagster.client.client_events import Retried as Retried
from later_reporting_dagster.client.client_events import RevisionChanged as RevisionChanged
from later_reporting_dagster.client.client_events import Waited as Waited
from later_reporting_dagster.client.client_events import WalkRepeated as WalkRepeated
from later_reporting_dagster.client.cursor_state import Reach as Reach
from later_reporting_dagster.client.errors import ContractBroken as ContractBroken
from later_reporting_dagster.client.errors import CredentialsRejected as CredentialsRejected
from later_reporting_dagster.client.errors import InstanceForbidden as InstanceForbidden
from later_reporting_dagster.client.errors import LaterError as LaterError
from later_reporting_dagster.client.errors import MetricsRefused as MetricsRefused
from later_reporting_dagster.client.errors import QueryRefused as QueryRefused
from later_reporting_dagster.client.errors import Retriable as Retriable
from later_reporting_dagster.client.errors import TooManyPosts as TooManyPosts
from later_reporting_dagster.client.errors import WalkInconsistent as WalkInconsistent
from later_reporting_dagster.client.pagination import Walk as Walk
from later_reporting_dagster.client.rate_limiter import RateLimiter as RateLimiter
from later_reporting_dagster.client.rate_limiter import shared_state_path as shared_state_path
from later_reporting_dagster.client.retry_policy import RetryPolicy as RetryPolicy
from later_reporting_dagster.client.version_cache import RevisionMemory as RevisionMemory
from later_reporting_dagster.client.version_cache import remembered_revision_path as remembered_revision_path
