-- Was last month better than the month before?
WITH last_month AS (SELECT date_trunc('month', max(last_day)) - INTERVAL 1 MONTH AS month FROM organic_paid_overall),
months AS (SELECT *, date_trunc('month', date) = month AS is_last FROM organic_paid_daily, last_month
    WHERE date_trunc('month', date) IN (month, month - INTERVAL 1 MONTH))
SELECT
    sum(organic_impressions) FILTER (is_last) AS organic_impressions,
    sum(organic_impressions) FILTER (NOT is_last) AS previous_organic_impressions,
    100 * sum(organic_rate_engagements) FILTER (is_last) / sum(organic_rate_impressions) FILTER (is_last)
        AS organic_engagement_rate,
    sum(ad_spend) FILTER (is_last) AS ad_spend, sum(ad_spend) FILTER (NOT is_last) AS previous_ad_spend
FROM months
