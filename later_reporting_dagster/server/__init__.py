"""The documented endpoint as an ASGI application over a store of posts: the synthetic world of the sandbox, or a lake.

The parts for a lake are in `lake_app`, which imports DuckDB and Arrow; the others do not.
"""

from later_reporting_dagster.server.http_server import running_server as running_server
from later_reporting_dagster.server.http_server import serve as serve
from later_reporting_dagster.server.tokens import Client as Client
