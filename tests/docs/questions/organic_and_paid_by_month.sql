-- How many impressions and engagements, organic and paid, by month?
SELECT date_trunc('month', date)::DATE AS month,
    sum(organic_impressions) AS organic_impressions, sum(paid_impressions) AS paid_impressions,
    sum(organic_engagements) AS organic_engagements, sum(paid_engagements) AS paid_engagements
FROM organic_paid_daily
GROUP BY ALL ORDER BY ALL
