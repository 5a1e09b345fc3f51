"""The documented endpoint over a store of posts: the synthetic world of the sandbox, or a lake."""

from later_reporting_dagster.endpoint.http_server import running_server as running_server
from later_reporting_dagster.endpoint.http_server import serve as serve
from later_reporting_dagster.endpoint.tokens import Client as Client
