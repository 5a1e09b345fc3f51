-- The newest published post of each instance and network.
SELECT instance_id, platform, newest_day - max(CAST(post_date AS DATE)) AS newest_age
FROM posts, newest
WHERE is_published
GROUP BY instance_id, platform, newest_day
