{#- A table of weeks or months: a post counts once, whatever the number of its days. -#}
{%- import "measures.sql" as measures with context -%}
{%- import "comparison.sql" as comparison with context -%}

{#- `span` is `week` or `month`. -#}
{%- macro over_days(span) -%}
{%- set by = ("first_day",) + grain -%}
WITH posts AS (
    SELECT
        CAST(date_trunc('{{ span }}', date) AS DATE) AS first_day, {{ grain | join(", ") }}, post_id,
        arg_max_null(creator_id, date) AS creator_id,
        {{- measures.sums(names) }}
    FROM post_metrics_daily_rows
    GROUP BY ALL
),
cells AS (
    SELECT {{ by | join(", ") }}, creator_id, {{ measures.post_sums(names) }}
    FROM posts
    GROUP BY ALL
),
days AS (
    SELECT CAST(date_trunc('{{ span }}', date) AS DATE) AS first_day, instance_id, count(*) AS days
    FROM landed
    WHERE date_basis = 'performance_date'
    GROUP BY ALL
),
{{ comparison.comparison(by, names, "cells", "posts") }}
SELECT
    compared.*, days,
    date_diff('day', first_day, CAST(first_day + INTERVAL 1 {{ span }} AS DATE)) AS days_expected
FROM compared JOIN days USING (first_day, instance_id)
{%- endmacro -%}
