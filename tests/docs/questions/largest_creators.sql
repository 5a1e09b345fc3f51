-- Which creators had the most impressions in the last 90 days?
SELECT instance_id, creator_id, count(DISTINCT post_id) AS posts, sum(impressions) AS organic_impressions
FROM (FROM post_metrics_daily QUALIFY campaign_id = min(campaign_id) OVER (PARTITION BY date, instance_id, post_id))
WHERE date > (SELECT max(last_day) - 90 FROM organic_paid_overall) AND creator_id IS NOT NULL
GROUP BY ALL ORDER BY organic_impressions DESC NULLS LAST, instance_id, creator_id LIMIT 10
