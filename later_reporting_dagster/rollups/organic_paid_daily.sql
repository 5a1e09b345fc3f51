-- Organic and paid results recorded on each day. On a day, a post has one row per campaign.
{%- import "measures.sql" as measures with context %}
WITH totals AS (
    SELECT
        date AS first_day, {{ grain | join(", ") }},
        {{ measures.group_totals_of_posts() }},
        {{ measures.same_post_creators_of_posts() }}
    FROM post_metrics_daily_rows
    GROUP BY ALL
)
SELECT *, {{ measures.rates() }}
FROM totals
