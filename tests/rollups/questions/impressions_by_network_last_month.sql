-- Impressions by network last month, organic and paid.
SELECT platform, sum(organic_impressions) AS organic_impressions, sum(paid_impressions) AS paid_impressions
FROM organic_paid_monthly
WHERE date = (SELECT CAST(date_trunc('month', max(last_day)) - INTERVAL 1 MONTH AS DATE) FROM organic_paid_overall)
GROUP BY ALL ORDER BY ALL
