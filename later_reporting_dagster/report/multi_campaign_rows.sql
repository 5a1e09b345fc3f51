-- Rows of posts in several campaigns (see the relation `multi_campaign_posts`). For each post and day, the row with the
-- lowest campaign id has rank 1. The other rows should report the same numbers, so tables that count a post once use only
-- this row.
{%- set tables = (
    ("post_metrics_daily_rows", "recorded_multi_campaign", "performance_date"),
    ("posts_published_rows", "published_multi_campaign", "post_date")
) %}
{%- for rows, table, _ in tables %}
CREATE OR REPLACE TABLE {{ table }} AS
SELECT *, row_number() OVER (PARTITION BY date, instance_id, post_id ORDER BY campaign_id) AS campaign_rank
FROM {{ rows }} SEMI JOIN multi_campaign_posts USING (instance_id, post_id);
{% endfor %}
-- Sums by day of the rows that are not counted in tables whose grain has no campaign.
CREATE OR REPLACE TABLE duplicate_sums AS
{%- for _, table, date_basis in tables %}
SELECT '{{ date_basis }}' AS date_basis, date{% for metric in metrics %}, sum({{ metric.sum }}) AS {{ metric.sum }}{% endfor %}
FROM {{ table }}
WHERE campaign_rank > 1
GROUP BY ALL
{{- " UNION ALL" if not loop.last }}
{%- endfor %};

-- (Post, day) pairs, over both date bases, for which campaigns report different numbers.
CREATE OR REPLACE TABLE campaign_conflicts AS
{%- for _, table, _ in tables %}
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
