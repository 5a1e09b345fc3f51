"""Values, limits and parsers of the Reporting API as docs/api.md describes it; no I/O and no Dagster."""

from later_reporting_dagster.contract.metrics import CAMPAIGN_METRICS as CAMPAIGN_METRICS
from later_reporting_dagster.contract.metrics import DEFAULT_CAMPAIGN_METRICS as DEFAULT_CAMPAIGN_METRICS
from later_reporting_dagster.contract.metrics import DEFAULT_METRICS as DEFAULT_METRICS
from later_reporting_dagster.contract.metrics import METRICS as METRICS
from later_reporting_dagster.contract.metrics import Metric as Metric
from later_reporting_dagster.contract.metrics import parse_metrics as parse_metrics
from later_reporting_dagster.contract.parameters import API_VERSIONS as API_VERSIONS
from later_reporting_dagster.contract.parameters import CURSOR as CURSOR
from later_reporting_dagster.contract.parameters import PAGED as PAGED
from later_reporting_dagster.contract.parameters import ApiVersion as ApiVersion
from later_reporting_dagster.contract.parameters import ContentType as ContentType
from later_reporting_dagster.contract.parameters import DateBasis as DateBasis
from later_reporting_dagster.contract.parameters import Platform as Platform
from later_reporting_dagster.contract.query import PerformanceQuery as PerformanceQuery
from later_reporting_dagster.contract.rows import BadRow as BadRow
from later_reporting_dagster.contract.rows import Post as Post
