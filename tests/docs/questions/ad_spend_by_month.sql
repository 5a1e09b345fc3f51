-- What was spent on ads, by month?
SELECT date_trunc('month', date)::DATE AS month, sum(ad_spend) AS ad_spend, sum(ad_spend_low) AS at_least
FROM organic_paid_daily
GROUP BY ALL ORDER BY month
