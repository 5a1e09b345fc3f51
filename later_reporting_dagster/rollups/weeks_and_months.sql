{#- The whole query of a table of weeks or months. A post counts once, even if it has results on several days. -#}
{%- import "measures.sql" as measures with context -%}
{%- import "channel_comparison.sql" as comparison with context -%}

{#- `period` is `week` or `month`. -#}
{%- macro weeks_and_months(period) -%}
{%- set by = ("first_day",) + grain -%}
WITH posts AS (
    SELECT
        CAST(date_trunc('{{ period }}', date) AS DATE) AS first_day, {{ grain | join(", ") }}, post_id,
        arg_max_null(creator_id, date) AS creator_id,
        {{- measures.sums(sum_columns) }}
    FROM post_metrics_daily_rows
    GROUP BY ALL
),
post_groups AS (
    SELECT {{ by | join(", ") }}, creator_id, {{ measures.group_totals_of_posts(sum_columns) }}
    FROM posts
    GROUP BY ALL
),
days AS (
    SELECT CAST(date_trunc('{{ period }}', date) AS DATE) AS first_day, instance_id, count(*) AS days
    FROM stored_days
    WHERE date_basis = 'performance_date'
    GROUP BY ALL
),
{{ comparison.channel_comparison(by, sum_columns, "post_groups", "posts") }}
SELECT
    compared.*, days,
    date_diff('day', first_day, CAST(first_day + INTERVAL 1 {{ period }} AS DATE)) AS days_expected
FROM compared JOIN days USING (first_day, instance_id)
{%- endmacro -%}
