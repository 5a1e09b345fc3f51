-- The rows of `shared_posts`, which are in several campaigns. On each day the row of the lowest campaign id has place 1: it
-- stands for the others, which are to report the same.
{%- set shared = (
    ("post_metrics_daily_rows", "recorded_shared", "performance_date"), ("posts_published_rows", "published_shared", "post_date")
) %}
{%- for rows, table, _ in shared %}
CREATE OR REPLACE TABLE {{ table }} AS
SELECT *, row_number() OVER (PARTITION BY date, instance_id, post_id ORDER BY campaign_id) AS place
FROM {{ rows }} SEMI JOIN shared_posts USING (instance_id, post_id);
{% endfor %}
-- By day, what counts once less where the grain has no campaign.
CREATE OR REPLACE TABLE repeated AS
{%- for _, table, basis in shared %}
SELECT '{{ basis }}' AS date_basis, date{% for metric in metrics %}, sum({{ metric.sum }}) AS {{ metric.sum }}{% endfor %}
FROM {{ table }}
WHERE place > 1
GROUP BY ALL
{{- " UNION ALL" if not loop.last }}
{%- endfor %};

-- Posts and days on which one campaign reports other numbers than another.
CREATE OR REPLACE TABLE disagreeing AS
{%- for _, table, _ in shared %}
SELECT date, instance_id, post_id
FROM {{ table }}
GROUP BY ALL
HAVING count(*) > 1 AND (
    {%- for metric in metrics %}
    min({{ metric.sum }}) <> max({{ metric.sum }}) OR count({{ metric.sum }}) NOT IN (0, count(*)){{ " OR" if not loop.last }}
    {%- endfor %}
)
{{- " UNION ALL" if not loop.last }}
{%- endfor %};
