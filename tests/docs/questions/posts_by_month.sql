-- How many posts were published, by month and network?
SELECT date_trunc('month', date)::DATE AS month, platform, count(DISTINCT (instance_id, post_id)) AS posts
FROM posts_published
GROUP BY ALL ORDER BY ALL
