-- Organic and paid results to date of the posts published on each day, with costs.
{%- import "measures.sql" as measures with context %}
WITH totals AS (
    SELECT
        date AS first_day, {{ grain | join(", ") }}, count(*) AS posts,
        {{- measures.sums(sum_columns + spend_columns) }},
        {{- measures.post_counts(sum_columns + spend_columns, rows_are_posts=true) }}
    FROM posts_published_rows
    GROUP BY ALL
)
SELECT *, {{ measures.rates() }}, {{ measures.costs() }}
FROM totals
