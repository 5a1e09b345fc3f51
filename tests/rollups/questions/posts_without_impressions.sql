-- By network, how many posts report no impressions.
SELECT platform, count(*) FILTER (organic_impressions IS NULL) AS without_impressions, count(*) AS posts
FROM posts WHERE is_published
GROUP BY ALL ORDER BY ALL
