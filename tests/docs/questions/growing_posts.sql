-- Which posts have suddenly grown?
WITH days AS (
    SELECT instance_id, post_id, max(impressions) AS impressions, (SELECT max(last_day) FROM organic_paid_overall) - date AS ago
    FROM post_metrics_daily GROUP BY ALL
)
SELECT instance_id, post_id, sum(impressions) FILTER (ago < 7) AS last_7_days, sum(impressions) FILTER (ago >= 7) AS the_7_before
FROM days JOIN posts USING (instance_id, post_id)
WHERE ago < 14 AND age >= 14
GROUP BY ALL ORDER BY coalesce(last_7_days, 0) - coalesce(the_7_before, 0) DESC, instance_id, post_id LIMIT 10
