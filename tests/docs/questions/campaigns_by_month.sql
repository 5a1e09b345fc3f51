-- What does a campaign cost, by month?
SELECT date_trunc('month', date)::DATE AS month, campaign_id, sum(paid_ad_spend) AS ad_spend
FROM campaign_performance_daily
GROUP BY ALL ORDER BY month DESC, ad_spend DESC NULLS LAST, campaign_id LIMIT 10
