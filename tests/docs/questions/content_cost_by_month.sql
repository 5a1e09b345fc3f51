-- What did content cost, by month?
WITH bounds AS (
    SELECT instance_id, post_id, date,
        greatest(
            CASE WHEN engagements > 0 AND cpe IS NOT NULL THEN greatest(cpe - 0.005, 0) * engagements END,
            CASE WHEN impressions > 0 AND cpm IS NOT NULL THEN greatest(cpm - 0.005, 0) * impressions / 1000 END
        ) AS low,
        least(
            CASE WHEN engagements > 0 THEN (cpe + 0.005) * engagements END,
            CASE WHEN impressions > 0 THEN (cpm + 0.005) * impressions / 1000 END
        ) AS high
    FROM posts_published
),
costs AS (
    SELECT max(date) AS date, max(low) AS low, min(high) AS high FROM bounds GROUP BY instance_id, post_id
)
SELECT date_trunc('month', date)::DATE AS month, sum((low + high) / 2) FILTER (low <= high) AS content_cost,
    count(*) FILTER ((low <= high) IS NOT true) AS posts_of_unknown_cost
FROM costs
GROUP BY month ORDER BY month
