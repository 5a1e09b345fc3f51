-- Posts whose cost is unknown, by month of publication.
SELECT date_trunc('month', post_date) AS month, count(*) FILTER (content_cost IS NULL) AS posts_without_cost, count(*) AS posts
FROM posts WHERE is_published
GROUP BY ALL ORDER BY ALL
