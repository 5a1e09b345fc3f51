-- Which share of impressions is paid, by network?
SELECT platform, sum(organic_impressions) AS organic_impressions, sum(paid_impressions) AS paid_impressions,
    100 * sum(paid_impressions) / (sum(organic_impressions) + sum(paid_impressions)) AS paid_share_of_impressions
FROM organic_paid_daily
WHERE date > (SELECT max(last_day) - 90 FROM organic_paid_overall)
GROUP BY platform ORDER BY platform
