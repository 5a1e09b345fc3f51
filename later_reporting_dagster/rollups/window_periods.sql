-- Windows of days end with the newest day of post_metrics_daily, beside as many days before. This month ends with it, too, beside
-- as many first days of the month before, or all. Last month stands beside the month before it.
CREATE TYPE IF NOT EXISTS window_name AS ENUM ({% for name in windows %}'{{ name }}'{{ ", " if not loop.last }}{% endfor %});

CREATE OR REPLACE TABLE periods AS
WITH days AS (
    SELECT
        max(date) AS newest_day,
        CAST(date_trunc('month', newest_day) AS DATE) AS this_month,
        CAST(this_month - INTERVAL 1 MONTH AS DATE) AS last_month,
        CAST(this_month - INTERVAL 2 MONTH AS DATE) AS month_before
    FROM stored_files
    WHERE table_name = 'post_metrics_daily'
),
windows (time_window, is_previous, first_day, last_day) AS (
    {%- for name, length in lengths.items() %}
    SELECT '{{ name }}', false, newest_day - {{ length - 1 }}, newest_day FROM days
    UNION ALL SELECT '{{ name }}', true, newest_day - {{ 2 * length - 1 }}, newest_day - {{ length }} FROM days UNION ALL
    {%- endfor %}
    SELECT 'this_month', false, this_month, newest_day FROM days
    UNION ALL SELECT 'this_month', true, last_month, CAST(newest_day - INTERVAL 1 MONTH AS DATE) FROM days
    UNION ALL SELECT 'last_month', false, last_month, this_month - 1 FROM days
    UNION ALL SELECT 'last_month', true, month_before, last_month - 1 FROM days
)
SELECT * REPLACE (CAST(time_window AS window_name) AS time_window) FROM windows WHERE last_day IS NOT NULL;

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
    time_window, is_previous, scope, instance_id, first_day, last_day, last_day - first_day + 1 AS days_expected,
    count(*) FILTER (date BETWEEN first_day AND last_day) AS days
FROM periods CROSS JOIN days
GROUP BY ALL;
