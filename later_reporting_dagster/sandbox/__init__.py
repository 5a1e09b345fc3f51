"""The documented endpoint, served locally over synthetic data: for the demo, and for tests over real HTTP."""

from later_reporting_dagster.sandbox.chances import read_chances
from later_reporting_dagster.sandbox.faults import FAULTS, FaultSettings
from later_reporting_dagster.sandbox.faulty import FAULTS_HEADER, FaultySandbox
from later_reporting_dagster.sandbox.hostile import HOSTILE, HOSTILE_INSTANCE_IDS
from later_reporting_dagster.sandbox.server import BANNER, DEFAULT_PORT, running_sandbox, serve
from later_reporting_dagster.sandbox.service import SandboxOptions, create_app
from later_reporting_dagster.sandbox.world import EXAMPLE_INSTANCE_IDS, World, two_years_before

__all__ = [
    "BANNER",
    "DEFAULT_PORT",
    "EXAMPLE_INSTANCE_IDS",
    "FAULTS",
    "FAULTS_HEADER",
    "FaultSettings",
    "FaultySandbox",
    "HOSTILE",
    "HOSTILE_INSTANCE_IDS",
    "SandboxOptions",
    "World",
    "create_app",
    "read_chances",
    "running_sandbox",
    "serve",
    "two_years_before",
]
