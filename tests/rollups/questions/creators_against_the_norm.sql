-- Whom to book again: creators by the median rank of their posts, with what an engagement has cost.
SELECT instance_id, creator_id, count(*) AS posts, median(organic_engagement_rate_percentile) AS rank,
    sum(content_cost) / sum(organic_engagements) FILTER (content_cost IS NOT NULL) AS content_cost_per_engagement
FROM posts
WHERE creator_id IS NOT NULL
GROUP BY ALL HAVING count(organic_engagement_rate_percentile) >= 3
ORDER BY rank DESC, instance_id, creator_id
