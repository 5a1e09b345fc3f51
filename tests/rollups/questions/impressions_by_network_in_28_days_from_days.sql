-- The same from days.
SELECT platform, sum(organic_impressions) AS organic_impressions, sum(paid_impressions) AS paid_impressions
FROM organic_paid_daily
WHERE date > (SELECT max(last_day) - 28 FROM organic_paid_overall)
GROUP BY ALL ORDER BY ALL
