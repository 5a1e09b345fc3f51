-- Rows of posts in several campaigns (see the relation `multi_campaign_posts`). For each post and day, the row with the
-- lowest campaign id has rank 1. The other rows should report the same numbers, so tables that count a post once use only
-- this row.
{%- set tables = (
    ("post_metrics_daily", "recorded_multi_campaign", reconciled_metrics),
    ("posts_published", "published_multi_campaign", reconciled_costs)
) %}
{%- for raw_table, table, _ in tables %}
CREATE OR REPLACE TABLE {{ table }} AS
SELECT *, row_number() OVER (PARTITION BY date, instance_id, post_id ORDER BY campaign_id) AS campaign_rank
FROM {{ raw_table }}_rows SEMI JOIN multi_campaign_posts USING (instance_id, post_id);
{% endfor %}
{#- Relations that rows of all batches are added to. -#}
{%- macro add_to(table) %}{{ "CREATE OR REPLACE TABLE %s AS" % table if is_first_batch else "INSERT INTO %s" % table }}{% endmacro %}
-- Sums by day of the rows that are not counted in tables whose grain has no campaign, for reconciliation.
{%- for raw_table, table, columns in tables %}
{{ add_to(raw_table + "_duplicates") }}
SELECT date AS first_day{% for name in columns %}, sum({{ name }}) AS {{ name }}{% endfor %}
FROM {{ table }}
WHERE campaign_rank > 1
GROUP BY ALL;
{% endfor %}
-- (Post, day) pairs, over both date bases, for which campaigns report different numbers.
{{ add_to("campaign_conflicts") }}
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
