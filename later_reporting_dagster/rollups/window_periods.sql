-- Windows end with the newest day of post_metrics_daily. Each is compared with the period of the same length before it.
CREATE TYPE IF NOT EXISTS window_name AS ENUM ({% for name in windows %}'{{ name }}'{{ ", " if not loop.last }}{% endfor %});

CREATE OR REPLACE TABLE periods AS
WITH windows (time_window, length) AS (
    VALUES {% for name, length in windows.items() %}('{{ name }}', {{ length }}){{ ", " if not loop.last }}{% endfor %}
),
newest AS (SELECT max(date) AS newest_day FROM stored_files WHERE table_name = 'post_metrics_daily')
SELECT
    CAST(time_window AS window_name) AS time_window, is_previous, CAST(length AS INTEGER) AS length,
    CASE WHEN is_previous THEN newest_day - length ELSE newest_day END AS last_day,
    last_day - (length - 1) AS first_day
FROM windows, newest, (VALUES (false), (true)) AS _ (is_previous)
WHERE newest_day IS NOT NULL;

-- For an instance, the days of a period on which it has a file. For all instances, those on which each of them has one; their
-- sums include the other days, too.
CREATE OR REPLACE TABLE period_days AS
WITH files AS (SELECT date, instance_id FROM stored_files WHERE table_name = 'post_metrics_daily'),
complete_days AS (
    SELECT date FROM files GROUP BY date HAVING count(*) = (SELECT count(DISTINCT instance_id) FROM files)
),
days AS (
    SELECT date, 'instance' AS scope, instance_id FROM files
    UNION ALL SELECT date, 'all', '' FROM complete_days
    UNION ALL SELECT NULL, 'all', ''  -- 0 days, if no day is complete
)
SELECT
    time_window, is_previous, scope, instance_id, first_day, last_day, length AS days_expected,
    count(*) FILTER (date BETWEEN first_day AND last_day) AS days
FROM periods CROSS JOIN days
GROUP BY ALL;
