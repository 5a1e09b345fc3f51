-- What each day earned, organic beside paid. On a day a post is one row.
{%- import "measures.sql" as measures with context %}
WITH totals AS (
    SELECT
        date AS first_day, {{ grain | join(", ") }}, count(*) AS posts,
        {{- measures.sums(names) }},
        {{- measures.coverage(names, counted=true) }}
    FROM post_metrics_daily_rows
    GROUP BY ALL
)
SELECT *, {{ measures.rates() }}
FROM totals
