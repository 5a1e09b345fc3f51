-- Relations from which the window tables are computed. All windows are computed together: each raw row is read once.
{%- import "measures.sql" as measures with context %}
{%- set attributes = ("creator_id", "platform", "content_type") %}
{%- set range = "time_window, is_previous" %}
{%- set post = "instance_id, campaign_id, post_id" %}

{% include "window_ranges.sql" %}

-- The windows and previous periods overlap. So the days are divided into slices, and rows are summed by slice first. Slice 0
-- has the newest days; each window and previous period begins with a slice, its `last_slice`.
CREATE OR REPLACE TABLE calendar AS
SELECT days.table_name, days.date, CAST(count(DISTINCT first_day) AS UTINYINT) AS slice
FROM (SELECT DISTINCT table_name, date FROM stored_files) AS days
LEFT JOIN ranges ON ranges.table_name = days.table_name AND first_day > date
GROUP BY ALL;

-- By performance date, a post has a row per day. Its creator, platform and content type are those of its newest row.
CREATE OR REPLACE TABLE posts_in_slices AS
SELECT
    counted_per, {{ post }}, slice
    {%- for name in attributes %}, arg_max_null({{ name }}, date) AS {{ name }}{% endfor %},
    {{- measures.sums(sum_columns) }}
FROM post_metrics_daily_counted JOIN calendar USING (date)
WHERE table_name = 'post_metrics_daily'
GROUP BY ALL;

-- Sums of each post from slice 0 to `slice`, its oldest one up to `until`: they hold for all windows that end in between.
CREATE OR REPLACE TABLE running_sums AS
SELECT
    counted_per, {{ post }}, slice, coalesce(lead(slice) OVER newest_first - 1, 255) AS until
    {%- for name in attributes %}, first_value({{ name }}) OVER newest_first AS {{ name }}{% endfor %}
    {%- for name in sum_columns %},
    {% if name in integer_columns %}CAST(sum({{ name }}) OVER newest_first AS BIGINT){% else %}sum({{ name }}) OVER newest_first{% endif %} AS {{ name }}
    {%- endfor %}
FROM posts_in_slices
WINDOW newest_first AS (PARTITION BY post_id, campaign_id, instance_id, counted_per ORDER BY slice ROWS UNBOUNDED PRECEDING);

{%- set columns %}{{ range }}, counted_per, {{ post }}, {{ attributes | join(", ") }}, {{ sum_columns | join(", ") }}{% endset %}
-- Totals of the finest groups. In a range, each row of a post (one per campaign if counted_per is 'campaign', else one) is
-- in exactly one of them, so they add up to the totals of coarser groups.
CREATE OR REPLACE TABLE post_groups AS
WITH posts_in_windows AS (
    -- One row per post and range. With the lengths in WINDOWS, a previous period is a single slice.
    SELECT {{ columns }}
    FROM running_sums JOIN ranges ON last_slice BETWEEN slice AND until
    WHERE table_name = 'post_metrics_daily' AND NOT is_previous
    UNION ALL
    SELECT {{ columns }}
    FROM posts_in_slices JOIN ranges ON last_slice = slice
    WHERE table_name = 'post_metrics_daily' AND is_previous
)
SELECT {{ range }}, counted_per, instance_id, campaign_id, {{ attributes | join(", ") }}, {{ measures.group_totals_of_posts() }}
FROM posts_in_windows
GROUP BY ALL;

-- Sums for costs, by window and campaign. By post date, a post is one row, with its metrics to date.
CREATE OR REPLACE TABLE cost_groups AS
WITH by_slice AS (
    SELECT slice, counted_per, instance_id, campaign_id, {{- measures.sums(cost_columns) }}
    FROM posts_published_counted JOIN calendar USING (date)
    WHERE table_name = 'posts_published'
    GROUP BY ALL
)
SELECT time_window, counted_per, instance_id, campaign_id, {{- measures.sums(cost_columns) }}
FROM by_slice JOIN ranges ON slice <= last_slice
WHERE table_name = 'posts_published'
GROUP BY ALL;
