-- The same, computed again from the parts of the rates of days.
SELECT 100 * sum(organic_rate_engagements) / sum(organic_rate_impressions) AS rate
FROM organic_paid_daily
WHERE date > (SELECT max(last_day) - 28 FROM organic_paid_overall)
