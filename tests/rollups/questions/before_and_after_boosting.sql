-- Organic impressions of boosted posts on days before and since the first paid day. Not what boosting changes.
SELECT count(DISTINCT (instance_id, post_id)) AS posts,
    avg(impressions) FILTER (date < first_paid_day) AS before, avg(impressions) FILTER (date >= first_paid_day) AS since
FROM (SELECT DISTINCT ON (date, instance_id, post_id) * FROM post_metrics_daily ORDER BY campaign_id)
JOIN (SELECT instance_id, post_id, first_paid_day FROM posts WHERE first_paid_age > 0) USING (instance_id, post_id)
