-- Creators over all windows. A post counts once, even if it is in several campaigns.
{%- import "windows_with_changes.sql" as windows with context %}

{#- The names and links in the newest row of each creator's newest post. -#}
{%- macro newest_labels(rows) -%}
SELECT
    instance_id, creator_id,
    arg_max({ {%- for label in labels %}{{ label }}: {{ label }}{{ ", " if not loop.last }}{% endfor -%} }, (post_date, date, campaign_id, post_id)) AS label
FROM {{ rows }}
GROUP BY ALL
{%- endmacro %}
WITH {{ windows.windows_with_changes(grain, counted_per="post") }},
published_labels AS (
    {{ newest_labels("posts_published") }}
),
creators_without_published_posts AS (
    SELECT DISTINCT instance_id, creator_id FROM changes ANTI JOIN published_labels USING (instance_id, creator_id)
    WHERE creator_id IS NOT NULL
),
recorded_labels AS (
    {{ newest_labels("(FROM post_metrics_daily SEMI JOIN creators_without_published_posts USING (instance_id, creator_id))") }}
),
labels AS (FROM published_labels UNION ALL FROM recorded_labels)
SELECT changes.*, {% for label in labels %}label.{{ label }}{{ ", " if not loop.last }}{% endfor %}
FROM changes LEFT JOIN labels USING (instance_id, creator_id)
