-- Was the last week better than the week before?
SELECT
    sum(organic_impressions) FILTER (age < 7) AS organic_impressions,
    sum(organic_impressions) FILTER (age >= 7) AS previous_organic_impressions,
    100 * sum(organic_rate_engagements) FILTER (age < 7) / sum(organic_rate_impressions) FILTER (age < 7)
        AS organic_engagement_rate,
    sum(ad_spend) FILTER (age < 7) AS ad_spend, sum(ad_spend) FILTER (age >= 7) AS previous_ad_spend
FROM (SELECT *, (SELECT max(last_day) FROM organic_paid_overall) - date AS age FROM organic_paid_daily)
WHERE age < 14
