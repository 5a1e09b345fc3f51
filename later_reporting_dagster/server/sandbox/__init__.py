"""Local server of the API with synthetic data, for the demo and for tests over HTTP."""

from later_reporting_dagster.server.http_server import running_server as running_server
from later_reporting_dagster.server.sandbox.sandbox_app import SandboxOptions as SandboxOptions
from later_reporting_dagster.server.sandbox.sandbox_app import create_app as create_app
from later_reporting_dagster.server.sandbox.sandbox_app import demo_sandbox as demo_sandbox
from later_reporting_dagster.server.sandbox.synthetic_world import BANNER as BANNER
from later_reporting_dagster.server.sandbox.synthetic_world import EXAMPLE_INSTANCE_IDS as EXAMPLE_INSTANCE_IDS
from later_reporting_dagster.server.sandbox.synthetic_world import MAX_POSTS_PER_DAY as MAX_POSTS_PER_DAY
from later_reporting_dagster.server.sandbox.synthetic_world import World as World
from later_reporting_dagster.server.sandbox.synthetic_world import two_years_before as two_years_before
