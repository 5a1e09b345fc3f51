-- What did campaigns spend and return in the last 90 days, and what did people do on their links?
SELECT campaign_id, sum(paid_ad_spend) AS ad_spend
FROM campaign_performance_daily
WHERE date > (SELECT max(date) - 90 FROM campaign_performance_daily)
GROUP BY campaign_id ORDER BY ad_spend DESC NULLS LAST, campaign_id LIMIT 10
