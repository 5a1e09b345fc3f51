-- How many posts are paid for, and how soon?
WITH published AS (SELECT instance_id, post_id, max(date) AS day FROM posts_published GROUP BY ALL),
paid AS (
    SELECT instance_id, post_id, min(date) AS first_day
    FROM (FROM post_metrics_daily QUALIFY campaign_id = min(campaign_id) OVER (PARTITION BY date, instance_id, post_id))
    WHERE paid_impressions > 0 OR paid_engagements > 0
    GROUP BY ALL
)
SELECT date_trunc('month', day)::DATE AS month, count(*) AS posts, count(first_day) AS paid_for,
    median(first_day - day) AS median_age
FROM published LEFT JOIN paid USING (instance_id, post_id)
GROUP BY month ORDER BY month
