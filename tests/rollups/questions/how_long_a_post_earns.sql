-- The age at which half of the posts of a kind have nine tenths of their result of day 28.
SELECT platform, content_type, min(age) FILTER (organic_impressions_share_p50 >= 90) AS age
FROM organic_by_age
GROUP BY ALL ORDER BY ALL
