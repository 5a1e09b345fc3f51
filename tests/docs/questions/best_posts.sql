-- Which posts had the most engagements?
SELECT instance_id, post_id, engagements AS organic_engagements
FROM posts_published
QUALIFY campaign_id = min(campaign_id) OVER (PARTITION BY instance_id, post_id)
ORDER BY organic_engagements DESC NULLS LAST, instance_id, post_id LIMIT 10
