-- Creators over all windows. A post counts once, even if it is in several campaigns.
{%- import "measures.sql" as measures with context %}
{%- import "windows.sql" as windows with context %}

{#- Creators with the labels (names and links) in the newest row of their newest post. -#}
{%- macro labels_in_newest_rows(rows) -%}
SELECT
    instance_id, creator_id,
    arg_max({ {%- for label in labels %}{{ label }}: {{ label }}{{ ", " if not loop.last }}{% endfor -%} }, (post_date, date, campaign_id, post_id)) AS newest
FROM {{ rows }}
WHERE {{ measures.is_within_limits(metrics) }}
GROUP BY ALL
{%- endmacro %}
WITH {{ windows.comparison("post") }},
published_labels AS (
    {{ labels_in_newest_rows("posts_published") }}
),
creators_without_published_posts AS (
    SELECT DISTINCT instance_id, creator_id FROM windows ANTI JOIN published_labels USING (instance_id, creator_id)
    WHERE creator_id IS NOT NULL
),
recorded_labels AS (
    {{ labels_in_newest_rows("(FROM post_metrics_daily SEMI JOIN creators_without_published_posts USING (instance_id, creator_id))") }}
),
newest_labels AS (FROM published_labels UNION ALL FROM recorded_labels)
SELECT windows.*, {% for label in labels %}newest.{{ label }}{{ ", " if not loop.last }}{% endfor %}
FROM windows LEFT JOIN newest_labels USING (instance_id, creator_id)
