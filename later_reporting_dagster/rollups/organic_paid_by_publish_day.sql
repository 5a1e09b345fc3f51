-- What the posts published on each day have earned to date, organic beside paid, and what they cost.
{%- import "measures.sql" as measures with context %}
WITH totals AS (
    SELECT
        date AS first_day, {{ grain | join(", ") }}, count(*) AS posts,
        {{- measures.sums(names + spend_names) }},
        {{- measures.coverage(names + spend_names, counted=true) }}
    FROM posts_published_rows
    GROUP BY ALL
)
SELECT *, {{ measures.rates() }}, {{ measures.costs() }}
FROM totals
