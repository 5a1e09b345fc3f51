-- The same from days: counts of days can be summed.
SELECT platform, sum(organic_impressions) AS organic_impressions, sum(paid_impressions) AS paid_impressions
FROM organic_paid_daily
WHERE date_trunc('month', date) = (SELECT date_trunc('month', max(last_day)) - INTERVAL 1 MONTH FROM organic_paid_overall)
GROUP BY ALL ORDER BY ALL
