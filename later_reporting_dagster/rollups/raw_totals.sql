-- Totals of the raw rows by day, for reconciliation. Apart from types and limits of raw values, this query shares nothing
-- with the SQL of the rollups.
{%- import "measures.sql" as measures with context %}
SELECT
    date, {{ "duplicates.post_id IS NOT NULL" if with_duplicates else "false" }} AS is_duplicate,
    count(*) AS raw_rows, raw_rows AS posts
    {%- if measures_of_table == "costs" %}{% for channel, prefix in channels %},
    count(*) FILTER ({{ prefix }}impressions IS NOT NULL OR {{ prefix }}engagements IS NOT NULL) AS {{ channel }}_posts
    {%- endfor %}{% else %}{% for metric in metrics %},
    sum({{ measures.summable(metric) }}) AS {{ metric.sum }}
    {%- endfor %}{% endif %}
FROM {{ source }}
{%- if with_duplicates %}
LEFT JOIN (
    SELECT date, instance_id, campaign_id, post_id FROM {{ source }}_of_several_campaigns WHERE is_duplicate
) AS duplicates USING (date, instance_id, campaign_id, post_id)
{%- endif %}
WHERE {{ measures.is_within_limits(metrics) }}
GROUP BY ALL
