-- In the order of the rows of window tables.
CREATE TYPE IF NOT EXISTS window_name AS ENUM ({% for name in windows %}'{{ name }}'{{ ", " if not loop.last }}{% endfor %});

-- The days of each window, and of its previous period, which is compared by performance date only.
CREATE OR REPLACE TABLE ranges AS
WITH stored AS (SELECT table_name, min(date) AS oldest, max(date) AS newest FROM stored_files GROUP BY ALL),
windows (time_window, length) AS (
    VALUES {% for name, length in windows.items() %}('{{ name }}', {{ length or "NULL" }}){{ ", " if not loop.last }}{% endfor %}
),
current AS (
    SELECT
        table_name, CAST(time_window AS window_name) AS time_window, false AS is_previous,
        coalesce(newest - length + 1, oldest) AS first_day, newest AS last_day, CAST(newest - first_day + 1 AS INTEGER) AS length
    FROM stored, windows
),
previous AS (
    SELECT * REPLACE (true AS is_previous, first_day - length AS first_day, first_day - 1 AS last_day)
    FROM current WHERE table_name = 'post_metrics_daily' AND time_window <> 'all'
)
-- In the order of their first days, the newest first; `all` is the last one, whatever its first day.
SELECT *, CAST(dense_rank() OVER newest_first - 1 AS UTINYINT) AS last_slice
FROM (FROM current UNION ALL FROM previous)
WINDOW newest_first AS (PARTITION BY table_name ORDER BY time_window = 'all', first_day DESC);

-- How many days of a window have a file of an instance. For all instances together (`instance_id` is null), the sums.
CREATE OR REPLACE TABLE window_days AS
WITH instances AS (SELECT DISTINCT table_name, instance_id FROM stored_files),
counted AS (
    SELECT ranges.*, instances.instance_id, count(stored_files.date) AS days
    FROM ranges
    JOIN instances USING (table_name)
    LEFT JOIN stored_files
        ON stored_files.table_name = ranges.table_name AND stored_files.instance_id = instances.instance_id
        AND stored_files.date BETWEEN first_day AND last_day
    GROUP BY ALL
)
SELECT
    table_name, time_window, instance_id,
    {%- for name in ("first_day", "last_day") %}
    max({{ name }}) FILTER (NOT is_previous) AS {{ name }},
    {%- endfor %}
    CAST(sum(days) FILTER (NOT is_previous) AS BIGINT) AS days,
    CAST(sum(length) FILTER (NOT is_previous) AS BIGINT) AS days_expected,
    sum(days) FILTER (is_previous) AS previous_days
FROM counted
GROUP BY GROUPING SETS ((table_name, time_window, instance_id), (table_name, time_window));
