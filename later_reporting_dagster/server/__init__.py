"""The documented API as a server over a store of posts: the synthetic world of the sandbox, or a lake."""

from later_reporting_dagster.server.http_server import listen as listen
from later_reporting_dagster.server.http_server import running_server as running_server
from later_reporting_dagster.server.http_server import serve as serve
from later_reporting_dagster.server.tokens import Client as Client
