-- The totals of the raw rows by day, straight: nothing of what the tables are made with but the macro `money`.
SELECT
    {{ day }} AS first_day, count(*) AS raw_rows, raw_rows AS posts
    {%- for metric in metrics %},
    sum({% if metric.is_decimal %}money({{ metric.column }}, '{{ metric.column }}'){% else %}{{ metric.column }}{% endif %}) AS {{ metric.sum }}
    {%- endfor %}
FROM {{ rows }}
GROUP BY ALL
