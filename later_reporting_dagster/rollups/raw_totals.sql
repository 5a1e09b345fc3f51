-- Totals of the raw rows by first day of a period, for reconciliation. Apart from types and limits of raw values, this
-- query shares nothing with the SQL of the rollups.
{%- import "measures.sql" as measures with context %}
{%- set metrics = campaign_totals if measures_of_table == "campaigns" else metrics %}
SELECT
    {{ day }} AS first_day, count(*) AS raw_rows, raw_rows AS posts
    {%- if measures_of_table == "costs" %}{% for channel, prefix in channels %},
    count(*) FILTER ({{ prefix }}impressions IS NOT NULL OR {{ prefix }}engagements IS NOT NULL) AS {{ channel }}_posts
    {%- endfor %}{% else %}{% for metric in metrics %},
    sum({{ measures.summable(metric) }}) AS {{ metric.sum }}
    {%- endfor %}{% endif %}
FROM {{ raw_table }}
WHERE {{ measures.is_within_limits(metrics) }}
GROUP BY ALL
