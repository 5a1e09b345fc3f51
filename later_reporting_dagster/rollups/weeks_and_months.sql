{#- The whole query of a table of weeks or months. A post counts once, even if it has results on several days. -#}
{%- import "measures.sql" as measures with context -%}

{#- `period` is `week` or `month`. -#}
{%- macro weeks_and_months(period) -%}
WITH posts AS (
    SELECT
        CAST(date_trunc('{{ period }}', date) AS DATE) AS first_day, {{ grain | join(", ") }}, post_id,
        arg_max_null(creator_id, date) AS creator_id,
        {{- measures.sums(sum_columns) }}
    FROM post_metrics_daily_rows
    GROUP BY ALL
),
totals AS (
    SELECT
        first_day, {{ grain | join(", ") }},
        {{ measures.group_totals_of_posts() }},
        {{ measures.same_post_creators_of_posts() }}
    FROM posts
    GROUP BY ALL
),
days AS (
    SELECT CAST(date_trunc('{{ period }}', date) AS DATE) AS first_day, instance_id, count(*) AS days
    FROM stored_files
    WHERE table_name = 'post_metrics_daily'
    GROUP BY ALL
)
SELECT
    totals.*, {{ measures.rates() }}, days,
    date_diff('day', first_day, CAST(first_day + INTERVAL 1 {{ period }} AS DATE)) AS days_expected
FROM totals JOIN days USING (first_day, instance_id)
{%- endmacro -%}
