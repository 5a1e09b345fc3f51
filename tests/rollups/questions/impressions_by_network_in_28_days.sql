-- Impressions by network in the last 28 days.
SELECT platform, organic_impressions, paid_impressions
FROM organic_paid_by_platform
WHERE time_window = '28d' AND scope = 'all'
ORDER BY ALL
