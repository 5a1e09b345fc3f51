-- Spend and unit costs, to date, of the posts published on each day.
{%- import "measures.sql" as measures with context %}
WITH totals AS (
    SELECT date AS first_day, {{ grain | join(", ") }}, {{- measures.sums(cost_columns) }}
    FROM posts_published_rows
    GROUP BY ALL
)
SELECT *, {{ measures.costs() }}
FROM totals
