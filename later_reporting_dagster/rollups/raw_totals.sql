-- Totals of the raw rows by day, for reconciliation. Independent of the rollups' SQL except for the macro `money`.
SELECT
    {{ day }} AS first_day, count(*) AS raw_rows, raw_rows AS posts
    {%- for metric in metrics %},
    sum({% if metric.is_decimal %}money({{ metric.column }}, '{{ metric.column }}'){% else %}{{ metric.column }}{% endif %}) AS {{ metric.sum }}
    {%- endfor %}
FROM {{ raw_table }}
GROUP BY ALL
