-- Organic and paid results recorded on each day. On a day, a post has one row per campaign.
{%- import "measures.sql" as measures with context %}
WITH totals AS (
    SELECT
        date AS first_day, {{ grain | join(", ") }}, count(*) AS posts,
        {{- measures.sums(sum_columns) }},
        {{- measures.post_counts(sum_columns, rows_are_posts=true) }}
    FROM post_metrics_daily_rows
    GROUP BY ALL
)
SELECT *, {{ measures.rates() }}
FROM totals
