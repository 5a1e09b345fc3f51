-- What is the engagement rate of the last 28 days?
SELECT 100 * sum(organic_rate_engagements) / sum(organic_rate_impressions) AS organic_engagement_rate
FROM organic_paid_daily
WHERE date > (SELECT max(last_day) - 28 FROM organic_paid_overall)
