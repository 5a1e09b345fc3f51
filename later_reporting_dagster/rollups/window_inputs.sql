-- Relations of posts from which the window tables and the report are computed, for one batch of instances. All windows are
-- computed together: each raw row is read once, and summed by post and slice (window_ranges.sql).
--
-- Names: `recorded` is by performance date (post_metrics_daily), `published` by post date (posts_published).
{%- import "measures.sql" as measures with context %}
{%- set post = "instance_id, campaign_id, post_id" %}
{%- set attributes = ("creator_id", "platform", "content_type") %}

{#- Relations that rows of all batches are added to. -#}
{%- macro add_to(table) %}{{ "CREATE OR REPLACE TABLE %s AS" % table if is_first_batch else "INSERT INTO %s" % table }}{% endmacro %}

-- By performance date, a post has a row per day. Its creator, platform and content type are taken from the newest row.
CREATE OR REPLACE TABLE recorded_by_campaign AS
SELECT
    {{ post }}, slice
    {%- for name in attributes %}, arg_max_null({{ name }}, date) AS {{ name }}{% endfor %},
    {{- measures.sums(sum_columns) }}
FROM post_metrics_daily_rows JOIN calendar USING (date)
WHERE date_basis = 'performance_date'
GROUP BY ALL;

-- A post in several campaigns, at the same time or one after the other, is in the relations below twice: with separate
-- rows for each campaign, for tables whose grain has a campaign (counted_per = 'campaign'), and with rows without a
-- campaign, for the other tables ('post'). A post in one campaign is in them once, for all tables ('either').
CREATE OR REPLACE TABLE multi_campaign_posts AS
WITH posts AS (
    SELECT instance_id, campaign_id, post_id FROM recorded_by_campaign
    UNION ALL
    SELECT instance_id, campaign_id, post_id FROM posts_published_rows
)
SELECT instance_id, post_id
-- First only by post_id: grouping by one integer is fast, and few posts remain.
FROM posts SEMI JOIN (SELECT post_id FROM posts GROUP BY post_id HAVING min(campaign_id) <> max(campaign_id)) USING (post_id)
GROUP BY ALL HAVING min(campaign_id) <> max(campaign_id);
{% include "multi_campaign_rows.sql" %}
CREATE OR REPLACE TABLE recorded_once AS
SELECT
    instance_id, CAST(NULL AS BIGINT) AS campaign_id, post_id, slice
    {%- for name in attributes %}, arg_max_null({{ name }}, date) AS {{ name }}{% endfor %},
    {{- measures.sums(sum_columns) }}
FROM recorded_multi_campaign JOIN calendar USING (date)
WHERE date_basis = 'performance_date' AND campaign_rank = 1
GROUP BY ALL;

CREATE OR REPLACE VIEW recorded AS
SELECT
    CAST(CASE WHEN multi_campaign_posts.post_id IS NULL THEN 'either' ELSE 'campaign' END AS counting) AS counted_per,
    recorded_by_campaign.*
FROM recorded_by_campaign LEFT JOIN multi_campaign_posts USING (instance_id, post_id)
UNION ALL
SELECT 'post', * FROM recorded_once;

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

-- The windows for which the sums of each pair of `slice` and `last_slice` hold.
CREATE OR REPLACE TABLE recorded_windows AS
SELECT slices.*, range_id
FROM (SELECT DISTINCT slice, last_slice FROM recorded_running_sums) AS slices
JOIN ranges ON oldest_slice BETWEEN slice AND last_slice
WHERE date_basis = 'performance_date' AND NOT is_previous;

-- Totals of the finest groups in each window and previous period. In a range, each row of a post (one per campaign if
-- counted_per is 'campaign', else one) is in exactly one of them, so they add up to the totals of coarser groups.
{%- set by = "counted_per, instance_id, campaign_id, " ~ attributes | join(", ") %}
CREATE OR REPLACE TABLE post_groups AS
WITH recorded_groups AS (
    SELECT slice, last_slice, {{ by }}, {{ measures.group_totals_of_posts() }}
    FROM recorded_running_sums
    GROUP BY ALL
)
SELECT range_id, {{ by }}, {{ measures.group_totals_of_groups() }}
FROM recorded_groups JOIN recorded_windows USING (slice, last_slice)
GROUP BY ALL
UNION ALL BY NAME
SELECT range_id, {{ by }}, {{ measures.group_totals_of_posts() }}
FROM recorded JOIN ranges ON slice = oldest_slice  -- a previous period is one slice
WHERE date_basis = 'performance_date' AND is_previous
GROUP BY ALL;

-- One row per post and window.
CREATE OR REPLACE VIEW posts_in_windows AS
SELECT range_id, counted_per, {{ post }}, {{ attributes | join(", ") }}, {{ lift_columns | join(", ") }}
FROM recorded_running_sums JOIN recorded_windows USING (slice, last_slice);

-- Totals by instance and creator, and the posts that may be clusters of their own (channel_comparison.sql), for
-- organic_paid_overall. A creator id is unique only within an instance.
{%- macro creator() %}CASE WHEN creator_id IS NOT NULL THEN struct_pack(instance_id := instance_id, creator_id := creator_id) END AS creator_id{% endmacro %}
{{ add_to("overall_groups") }}
SELECT range_id, instance_id, {{ creator() }}, {{ measures.group_totals_of_groups() }}
FROM post_groups
WHERE counted_per IN ('either', 'post')
GROUP BY range_id, instance_id, post_groups.creator_id;

{{ add_to("overall_posts") }}
WITH groups AS (FROM post_groups WHERE counted_per IN ('either', 'post')),
of_one_creator AS (
    SELECT range_id, instance_id FROM groups GROUP BY ALL HAVING min(creator_id) = max(creator_id) AND count(*) = count(creator_id)
)
SELECT range_id, instance_id, {{ creator() }}, {{ lift_columns | join(", ") }}
FROM posts_in_windows
WHERE counted_per IN ('either', 'post')
    AND (
        posts_in_windows.creator_id IS NULL
        OR EXISTS (
            FROM of_one_creator
            WHERE of_one_creator.range_id = posts_in_windows.range_id
                AND of_one_creator.instance_id = posts_in_windows.instance_id
        )
    );

-- Sums for costs, by window and campaign. By post date, a post is one row, with its metrics to date.
CREATE OR REPLACE VIEW published AS
SELECT
    CAST(CASE WHEN multi_campaign_posts.post_id IS NULL THEN 'either' ELSE 'campaign' END AS counting) AS counted_per,
    date, instance_id, campaign_id, {{ cost_columns | join(", ") }}
FROM posts_published_rows LEFT JOIN multi_campaign_posts USING (instance_id, post_id)
UNION ALL
SELECT 'post', date, instance_id, NULL, {{ cost_columns | join(", ") }}
FROM published_multi_campaign
WHERE campaign_rank = 1;

{{ add_to("cost_groups") }}
WITH by_slice AS (
    SELECT slice, counted_per, instance_id, campaign_id, {{- measures.sums(cost_columns) }}
    FROM published JOIN calendar USING (date)
    WHERE date_basis = 'post_date'
    GROUP BY ALL
)
SELECT range_id, counted_per, instance_id, campaign_id, {{- measures.sums(cost_columns) }}
FROM by_slice JOIN ranges ON slice <= oldest_slice AND date_basis = 'post_date'
GROUP BY ALL;
