-- Which share of impressions is paid, by network, and do people engage more with organic or with paid posts?
SELECT platform, sum(organic_impressions) AS organic_impressions, sum(paid_impressions) AS paid_impressions,
    100 * sum(paid_impressions) / (sum(organic_impressions) + sum(paid_impressions)) AS paid_share_of_impressions,
    100 * sum(organic_rate_engagements) / sum(organic_rate_impressions) AS organic_engagement_rate,
    100 * sum(paid_rate_engagements) / sum(paid_rate_impressions) AS paid_engagement_rate,
    sum(paid_rate_engagements) / sum(paid_rate_impressions)
        / (sum(organic_rate_engagements) / sum(organic_rate_impressions)) AS rate_ratio
FROM organic_paid_daily
WHERE date > (SELECT max(last_day) - 90 FROM organic_paid_overall)
GROUP BY platform ORDER BY platform
