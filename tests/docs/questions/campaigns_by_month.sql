-- Which campaigns ran last month, what did each deliver, and what did it cost?
WITH last_month AS (SELECT date_trunc('month', max(last_day)) - INTERVAL 1 MONTH AS month FROM organic_paid_overall),
results AS (
    SELECT campaign_id, sum(impressions)::BIGINT AS organic_impressions, sum(paid_impressions)::BIGINT AS paid_impressions
    FROM post_metrics_daily, last_month WHERE date_trunc('month', date) = month
    GROUP BY campaign_id
)
SELECT campaign_id, organic_impressions, results.paid_impressions, sum(paid_ad_spend) AS ad_spend
FROM campaign_performance_daily LEFT JOIN results USING (campaign_id), last_month
WHERE date_trunc('month', date) = month
GROUP BY ALL ORDER BY ad_spend DESC NULLS LAST, campaign_id LIMIT 10
