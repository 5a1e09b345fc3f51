"""HTTP client of the Reporting API: authentication, rate limit, retries and pagination; no Dagster."""

from later_reporting_dagster.client.auth import AccessToken as AccessToken
from later_reporting_dagster.client.auth import ClientCredentials as ClientCredentials
from later_reporting_dagster.client.client import LaterClient as LaterClient
from later_reporting_dagster.client.errors import ApiVersionChanged as ApiVersionChanged
from later_reporting_dagster.client.errors import CredentialsRejected as CredentialsRejected
from later_reporting_dagster.client.errors import InconsistentPages as InconsistentPages
from later_reporting_dagster.client.errors import LaterError as LaterError
from later_reporting_dagster.client.errors import QueryRejected as QueryRejected
from later_reporting_dagster.client.errors import RequestsUsedUp as RequestsUsedUp
from later_reporting_dagster.client.errors import RetriesExhausted as RetriesExhausted
from later_reporting_dagster.client.errors import TooManyRows as TooManyRows
from later_reporting_dagster.client.errors import UnexpectedResponse as UnexpectedResponse
from later_reporting_dagster.client.rate_limiter import RateLimiter as RateLimiter
from later_reporting_dagster.client.retries import RetryPolicy as RetryPolicy
from later_reporting_dagster.client.transport import ClientEvent as ClientEvent
from later_reporting_dagster.contract.page import ListResult as ListResult
