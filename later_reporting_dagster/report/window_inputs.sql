-- Relations from which the window tables and the report are computed. All windows are computed together.
--
-- The windows and previous periods of a date basis overlap. So the days are divided into slices: each window and each
-- previous period consists of whole slices. Slice 0 has the newest days. Each raw row is read once, and summed by post and
-- slice.
--
-- Names: `recorded` is by performance date (post_metrics_daily), `published` by post date (posts_published).
-- `window_ranges`, a relation from sql_engine.py, has a row (`range_id`) for each window and each previous period.
{%- import "measures.sql" as measures with context %}
{%- set post = "instance_id, campaign_id, post_id" %}
{%- set attributes = ("creator_id", "platform", "content_type") %}

CREATE OR REPLACE TABLE slice_starts AS
SELECT DISTINCT date_basis, first_day FROM window_ranges WHERE "window" <> 'all';

CREATE OR REPLACE TABLE calendar AS
SELECT
    stored_days.date_basis, stored_days.date, CAST(count(DISTINCT slice_starts.first_day) AS UTINYINT) AS slice
FROM stored_days
LEFT JOIN slice_starts
    ON slice_starts.date_basis = stored_days.date_basis AND slice_starts.first_day > stored_days.date
GROUP BY ALL;

-- A window covers the slices 0 to `oldest_slice`. With the lengths in WINDOWS, no other window or previous period begins
-- inside a previous period, so each previous period is exactly one slice; the queries below rely on that.
CREATE OR REPLACE TABLE ranges AS
SELECT window_ranges.*, CAST(count(DISTINCT slice_starts.first_day) AS UTINYINT) AS oldest_slice
FROM window_ranges
LEFT JOIN slice_starts
    ON slice_starts.date_basis = window_ranges.date_basis AND slice_starts.first_day > window_ranges.first_day
GROUP BY ALL;

-- By performance date, a post has a row per day. Its creator, platform and content type are taken from the newest row.
CREATE OR REPLACE TABLE recorded_by_campaign AS
SELECT
    {{ post }}, slice
    {%- for name in attributes %}, arg_max_null({{ name }}, date) AS {{ name }}{% endfor %},
    {{- measures.sums(sum_columns) }}
FROM post_metrics_daily_rows JOIN calendar USING (date)
WHERE date_basis = 'performance_date'
GROUP BY ALL;

-- By post date, a post is one row, with its metrics to date.
CREATE OR REPLACE TABLE published_by_campaign AS
SELECT {{ post }}, slice, {{ attributes | join(", ") }}, {{ (sum_columns + spend_columns) | join(", ") }}
FROM posts_published_rows JOIN calendar USING (date)
WHERE date_basis = 'post_date';

-- A post in several campaigns, at the same time or one after the other, is in the relations below twice: with separate
-- rows for each campaign, for tables whose grain has a campaign (counted_per = 'campaign'), and with rows without a
-- campaign, for the other tables ('post'). A post in one campaign is in them once, for all tables ('either').
CREATE OR REPLACE TABLE multi_campaign_posts AS
WITH posts AS (
    SELECT instance_id, campaign_id, post_id FROM recorded_by_campaign
    UNION ALL
    SELECT instance_id, campaign_id, post_id FROM published_by_campaign
)
SELECT instance_id, post_id
-- First only by post_id: grouping by one integer is fast, and few posts remain.
FROM posts SEMI JOIN (SELECT post_id FROM posts GROUP BY post_id HAVING min(campaign_id) <> max(campaign_id)) USING (post_id)
GROUP BY ALL HAVING min(campaign_id) <> max(campaign_id);
{% include "multi_campaign_rows.sql" %}
{% for table, date_basis, columns in (
    ("recorded", "performance_date", sum_columns), ("published", "post_date", sum_columns + spend_columns)
) %}
CREATE OR REPLACE TABLE {{ table }}_once AS
SELECT
    instance_id, CAST(NULL AS BIGINT) AS campaign_id, post_id, slice
    {%- for name in attributes %}, arg_max_null({{ name }}, date) AS {{ name }}{% endfor %},
    {{- measures.sums(columns) }}
FROM {{ table }}_multi_campaign JOIN calendar USING (date)
WHERE date_basis = '{{ date_basis }}' AND campaign_rank = 1
GROUP BY ALL;

CREATE OR REPLACE VIEW {{ table }} AS
SELECT
    CAST(CASE WHEN multi_campaign_posts.post_id IS NULL THEN 'either' ELSE 'campaign' END AS counting) AS counted_per,
    {{ table }}_by_campaign.*
FROM {{ table }}_by_campaign LEFT JOIN multi_campaign_posts USING (instance_id, post_id)
UNION ALL
SELECT 'post', * FROM {{ table }}_once;
{% endfor %}
-- Running sums of each post over the slices 0 (newest) to `slice`. The post has no rows in the older slices `slice` + 1
-- to `last_slice`, so the sums hold for every window whose oldest slice is one of `slice` to `last_slice`.
CREATE OR REPLACE TABLE recorded_running_sums AS
SELECT
    counted_per, {{ post }}, slice, coalesce(lead(slice) OVER newest_first - 1, 255) AS last_slice
    {%- for name in attributes %}, first_value({{ name }}) OVER newest_first AS {{ name }}{% endfor %}
    {%- for name in sum_columns %},
    {% if name in integer_columns %}CAST(sum({{ name }}) OVER newest_first AS BIGINT){% else %}sum({{ name }}) OVER newest_first{% endif %} AS {{ name }}
    {%- endfor %}
FROM recorded
WINDOW newest_first AS (PARTITION BY post_id, campaign_id, instance_id ORDER BY slice ROWS UNBOUNDED PRECEDING);

-- Posts published in each previous period, with the results recorded up to one window length before the newest day: at that
-- time, they were as old as the posts of the window are now.
CREATE OR REPLACE VIEW published_previously AS
SELECT
    published.counted_per, range_id
    {%- for name in ("instance_id", "campaign_id", "post_id") + attributes %}, published.{{ name }}{% endfor %},
    {%- for name in sum_columns %}
    {% if name in integer_columns %}CAST(sum(recorded.{{ name }}) AS BIGINT){% else %}sum(recorded.{{ name }}){% endif %} AS {{ name }}{{ "," if not loop.last }}
    {%- endfor %}
FROM published JOIN ranges ON published.slice = oldest_slice AND date_basis = 'post_date' AND is_previous
LEFT JOIN recorded
    ON recorded.counted_per = published.counted_per AND recorded.instance_id = published.instance_id
    AND recorded.campaign_id IS NOT DISTINCT FROM published.campaign_id AND recorded.post_id = published.post_id
    AND recorded.slice >= published.slice
GROUP BY ALL;

-- The windows for which the sums of each pair of `slice` and `last_slice` hold.
CREATE OR REPLACE TABLE recorded_windows AS
SELECT slices.*, range_id
FROM (SELECT DISTINCT slice, last_slice FROM recorded_running_sums) AS slices
JOIN ranges ON oldest_slice BETWEEN slice AND last_slice
WHERE date_basis = 'performance_date' AND NOT is_previous;

-- The windows of each published post: all that cover its slice.
CREATE OR REPLACE TABLE published_windows AS
SELECT slices.slice, range_id
FROM (SELECT DISTINCT slice FROM published_by_campaign) AS slices
JOIN ranges ON slice <= oldest_slice
WHERE date_basis = 'post_date' AND NOT is_previous;

-- Totals of the finest groups in each range. In a range, each row of a post (one per campaign if counted_per is
-- 'campaign', else one) is in exactly one of them, so they add up to the totals of coarser groups.
{%- set by = "counted_per, instance_id, campaign_id, " ~ attributes | join(", ") %}
CREATE OR REPLACE TABLE post_groups AS
WITH recorded_groups AS (
    SELECT slice, last_slice, {{ by }}, {{- measures.group_totals_of_posts(sum_columns) }}
    FROM recorded_running_sums
    GROUP BY ALL
),
published_groups AS (
    SELECT slice, {{ by }}, {{- measures.group_totals_of_posts(sum_columns + spend_columns) }}
    FROM published
    GROUP BY ALL
)
SELECT range_id, {{ by }}, {{- measures.group_totals_of_groups(sum_columns) }}
FROM recorded_groups JOIN recorded_windows USING (slice, last_slice)
GROUP BY ALL
UNION ALL BY NAME
SELECT range_id, {{ by }}, {{- measures.group_totals_of_posts(sum_columns) }}
FROM recorded JOIN ranges ON slice = oldest_slice  -- a previous period is one slice
WHERE date_basis = 'performance_date' AND is_previous
GROUP BY ALL
UNION ALL BY NAME
SELECT range_id, {{ by }}, {{- measures.group_totals_of_posts(sum_columns) }}
FROM published_previously
GROUP BY ALL
UNION ALL BY NAME
SELECT range_id, {{ by }}, {{- measures.group_totals_of_groups(sum_columns + spend_columns) }}
FROM published_groups JOIN published_windows USING (slice)
GROUP BY ALL;

-- One row per post and window.
CREATE OR REPLACE VIEW posts_in_windows AS
SELECT range_id, counted_per, {{ post }}, {{ attributes | join(", ") }}, {{ lift_columns | join(", ") }}
FROM recorded_running_sums JOIN recorded_windows USING (slice, last_slice)
UNION ALL
SELECT range_id, counted_per, {{ post }}, {{ attributes | join(", ") }}, {{ lift_columns | join(", ") }}
FROM published JOIN published_windows USING (slice);

-- How many days of a range have a file of an instance, and whether results of the range can be shown (`is_available`). For
-- a previous period by post date, post_metrics_daily has to have every day from the period's start up to one window length
-- before the newest day (`last_compared_day`).
CREATE OR REPLACE TABLE day_counts AS
WITH newest AS (SELECT max(date) AS day FROM stored_days WHERE date_basis = 'performance_date'),
counted AS (
    SELECT
        range_id, ranges.date_basis, is_previous, instances.instance_id, ranges.first_day, ranges.last_day,
        newest.day - CAST(date_diff('day', ranges.first_day, ranges.last_day) + 1 AS INTEGER) AS last_compared_day,
        count(stored_days.date) AS days
    FROM ranges
    JOIN (SELECT DISTINCT date_basis, instance_id FROM stored_days) AS instances USING (date_basis)
    LEFT JOIN stored_days
        ON stored_days.date_basis = ranges.date_basis AND stored_days.instance_id = instances.instance_id
        AND stored_days.date BETWEEN ranges.first_day AND ranges.last_day
    CROSS JOIN newest
    GROUP BY ALL
)
SELECT
    range_id, instance_id, days,
    days > 0 AND (
        date_basis = 'performance_date' OR NOT is_previous
        OR (
            SELECT count(*) FROM stored_days AS recorded
            WHERE recorded.date_basis = 'performance_date' AND recorded.instance_id = counted.instance_id
            AND recorded.date BETWEEN counted.first_day AND counted.last_compared_day
        ) = date_diff('day', first_day, last_compared_day) + 1 AND last_compared_day >= last_day
    ) AS is_available
FROM counted;
