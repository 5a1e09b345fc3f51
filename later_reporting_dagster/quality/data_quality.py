"""Count rows of a raw table that violate its invariants."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract import DEFAULT_METRICS, METRICS, DateBasis, Metric
from later_reporting_dagster.lake import FileDamaged, Lake, Partition
from later_reporting_dagster.lake.tables import RawTable, schema_of

# The API rounds rates to two decimals (docs/api.md, "Metrics, null and units"), so they are off by up to half of 0.01.
# The rest allows for binary floating point.
ROUNDING = 0.005 + 1e-6
UNREADABLE = "files cannot be read"
REPEATED_KEYS = "rows repeat a key"
OF_OTHER_FILES = "rows belong to another file"
CONTRADICTORY = "rates contradict their counts"
_COMPARED = ("engagements", "impressions", "engagement_rate", "cpe", "cpm")
# Most files have about twenty rows, and inspecting one takes as long as inspecting many together.
_FILES_TOGETHER = 64


def find_problems(
    lake: Lake, raw_table: RawTable, partitions: Sequence[Partition]
) -> tuple[dict[str, Counter[Partition]], dict[str, int]]:
    """Return how often a problem or an unknown field is in each file, and how many files and rows were read."""
    found: dict[str, Counter[Partition]] = defaultdict(Counter)
    looked_at = {"files": 0, "rows": 0}
    # Only the metrics that are compared, so that reading stays fast.
    schema = schema_of(raw_table.columns(metric for metric in raw_table.known_metrics if metric in DEFAULT_METRICS))
    for start in range(0, len(partitions), _FILES_TOGETHER):
        batch = partitions[start : start + _FILES_TOGETHER]
        files: list[tuple[Partition, pa.Table]] = []
        tables = lake.read_daily_files(raw_table.name, batch, schema=schema)
        for partition, rows in zip(batch, tables, strict=True):
            if isinstance(rows, FileDamaged):
                found[UNREADABLE][partition] += 1
            elif rows is not None:  # else it was removed since the listing
                files.append((partition, rows))
        looked_at["files"] += len(files)
        looked_at["rows"] += sum(rows.num_rows for _, rows in files)
        for file in files if _count_problems(files, raw_table) else ():
            for problem, count in _count_problems([file], raw_table).items():
                found[problem][file[0]] += count
    return found, looked_at


def _count_problems(files: Sequence[tuple[Partition, pa.Table]], raw_table: RawTable) -> Counter[str]:
    if not files:
        return Counter()
    together = pa.concat_tables([rows for _, rows in files])
    file_number = pa.array(np.repeat(np.arange(len(files)), [rows.num_rows for _, rows in files]))
    keys = together.select(list(raw_table.key)).append_column("file", file_number)
    problems = {
        REPEATED_KEYS: keys.num_rows - keys.group_by(keys.column_names).aggregate([]).num_rows,
        OF_OTHER_FILES: count_rows_outside_partition(files, date_basis=raw_table.date_basis),
        CONTRADICTORY: count_inconsistent_rates(together) if raw_table.has_rates_of_counts else 0,
    }
    return +Counter({**problems, **count_unknown_fields(together, raw_table.known_metrics)})  # + drops zeros


def count_rows_outside_partition(files: Sequence[tuple[Partition, pa.Table]], *, date_basis: DateBasis) -> int:
    """Return the number of rows whose instance or `post_date` does not match the partition of their file.

    By `performance_date` a post of any date may be in a partition.
    """
    rows = [posts.num_rows for _, posts in files]
    names = ["instance_id", *(["post_date"] if date_basis is DateBasis.POST_DATE else [])]
    columns = pa.concat_tables([posts.select(names) for _, posts in files])
    file_number = np.repeat(np.arange(len(files)), rows)
    instance_id = pa.array([partition.instance_id for partition, _ in files], pa.string()).take(file_number)
    inside = pc.equal(columns["instance_id"], instance_id)
    if date_basis is DateBasis.POST_DATE:
        post_date = columns["post_date"]
        midnight = pa.array([partition.day for partition, _ in files]).cast(post_date.type).take(file_number)
        inside = pc.and_(inside, pc.greater_equal(post_date, midnight))
        inside = pc.and_(inside, pc.less(post_date, pc.add(midnight, timedelta(days=1))))
    return int(columns.num_rows) - int(pc.sum(inside).as_py() or 0)


def count_inconsistent_rates(posts: pa.Table) -> int:
    """Return the number of rates, organic and paid, that contradict the counts of their row by more than rounding.

    The engagement rate is engagements per 100 impressions; cpe × engagements and cpm × impressions / 1000 are the same
    cost. Rows with a null in a comparison are not compared.
    """
    count = 0
    for prefix in ("", "paid_"):
        # Counts above 2⁵³ are rounded. A null is not a number, with which no comparison is true.
        columns = [posts[f"{prefix}{name}"].cast(pa.float64(), safe=False).to_numpy() for name in _COMPARED]
        engagements, impressions, rate, cpe, cpm = columns
        thousands = impressions / 1000
        # Products are compared instead of quotients, because a denominator may be zero.
        wrong_rate = abs(rate * thousands - engagements / 10) > thousands * ROUNDING + 1e-9
        wrong_cost = abs(cpe * engagements - cpm * thousands) > (engagements + thousands) * ROUNDING + 1e-9
        count += int(wrong_rate.sum() + wrong_cost.sum())
    return count


def count_unknown_fields(rows: pa.Table, known_metrics: Sequence[Metric] = METRICS) -> dict[str, int]:
    """Return the number of rows with each unknown field, and of posts with each content type of an unknown platform.

    Names are `field` of a post, `creatorProfile.field` of its creator, or `contentType=name`. Metrics that were not
    requested are known.
    """
    counts: Counter[str] = Counter()
    for extra in rows["extra"].drop_null().to_pylist():
        for name, value in json.loads(extra).items():
            is_creator = name == "creatorProfile" and isinstance(value, dict)
            counts.update([f"{name}.{each}" for each in value] if is_creator else [name])
    # The platform is null if the content type is null or names no known platform.
    if "platform" in rows.column_names and rows["platform"].null_count > rows["content_type"].null_count:
        unknown = rows["content_type"].filter(rows["platform"].is_null()).drop_null()
        counts.update(f"contentType={name}" for name in unknown.to_pylist())
    known = {metric.api_name for metric in known_metrics}
    return {name: count for name, count in counts.items() if name not in known}
