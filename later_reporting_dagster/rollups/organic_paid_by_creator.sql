-- Creators over all windows. A post counts once, whatever the number of its campaigns.
{%- import "windows_by.sql" as windows with context %}
{%- macro newest(rows) -%}
SELECT
    instance_id, creator_id,
    arg_max({ {%- for label in labels %}{{ label }}: {{ label }}{{ ", " if not loop.last }}{% endfor -%} }, (post_date, date, campaign_id, post_id)) AS label
FROM {{ rows }}
GROUP BY ALL
{%- endmacro %}
WITH {{ windows.windows_by(grain, counts_for="post") }},
-- Names and links are those of the creator's newest post.
published_labels AS (
    {{ newest("posts_published") }}
),
unlabelled AS (
    SELECT DISTINCT instance_id, creator_id FROM changes ANTI JOIN published_labels USING (instance_id, creator_id)
    WHERE creator_id IS NOT NULL
),
recorded_labels AS (
    {{ newest("(FROM post_metrics_daily SEMI JOIN unlabelled USING (instance_id, creator_id))") }}
),
labels AS (FROM published_labels UNION ALL FROM recorded_labels)
SELECT changes.*, {% for label in labels %}label.{{ label }}{{ ", " if not loop.last }}{% endfor %}
FROM changes LEFT JOIN labels USING (instance_id, creator_id)
