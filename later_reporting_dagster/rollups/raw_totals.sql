-- Totals of the raw rows by first day of a period, for reconciliation. Apart from types and limits of raw values, this
-- query shares nothing with the SQL of the rollups.
{%- import "measures.sql" as measures with context %}
SELECT
    {{ day }} AS first_day, count(*) AS raw_rows, raw_rows AS posts
    {%- for metric in metrics %},
    sum({{ measures.summable(metric) }}) AS {{ metric.sum }}
    {%- endfor %}
FROM {{ raw_table }}
WHERE {{ measures.is_within_limits(metrics) }}
GROUP BY ALL
