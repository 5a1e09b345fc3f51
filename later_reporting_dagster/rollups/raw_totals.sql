-- Totals of the raw rows by first day of a period, for reconciliation. Apart from the macro `money`, this query shares
-- nothing with the SQL of the rollups.
SELECT
    {{ day }} AS first_day, count(*) AS raw_rows, raw_rows AS posts
    {%- for metric in metrics %},
    sum({% if metric.is_decimal %}money({{ metric.column }}, '{{ metric.column }}'){% else %}{{ metric.column }}{% endif %}) AS {{ metric.sum }}
    {%- endfor %}
FROM {{ raw_table }}
GROUP BY ALL
