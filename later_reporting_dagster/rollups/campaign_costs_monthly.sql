-- What campaigns cost: the content cost of the posts published in a month, and the ad spend of its days.
WITH content AS (
    SELECT first_day AS month, campaign_id, estimated_content_cost AS content_cost, posts_count AS posts
    FROM campaign_performance_periods
    WHERE period = 'month'
),
ads AS (
    SELECT
        CAST(date_trunc('month', date) AS DATE) AS month, campaign_id,
        sum(CAST(paid_ad_spend AS DECIMAL(18, 6))) AS ad_spend
    FROM campaign_performance_daily
    WHERE coalesce(abs(paid_ad_spend) <= 1e9, true)
    GROUP BY ALL
),
days AS (
    SELECT CAST(date_trunc('month', date) AS DATE) AS month, count(*) AS days
    FROM stored_files
    WHERE table_name = 'campaign_performance_daily'
    GROUP BY ALL
),
-- A post of several campaigns is in each of them.
posts_of_campaigns AS (
    SELECT CAST(date_trunc('month', published_on) AS DATE) AS month, unnest(campaign_ids) AS campaign_id, content_cost_low
    FROM known_posts
    WHERE is_published
),
costless AS (
    SELECT month, campaign_id, count(*) AS posts_without_cost FROM posts_of_campaigns WHERE content_cost_low IS NULL GROUP BY ALL
)
SELECT
    month, campaign_id, instance_id, campaign_name, campaign_status, content_cost, ad_spend, posts,
    coalesce(posts_without_cost, 0) AS posts_without_cost,
    coalesce(days, 0) AS days,
    date_diff('day', month, CAST(month + INTERVAL 1 MONTH AS DATE)) AS days_expected
FROM content
FULL JOIN ads USING (month, campaign_id)
ANTI JOIN retired_campaigns USING (campaign_id)
LEFT JOIN days USING (month)
LEFT JOIN costless USING (month, campaign_id)
LEFT JOIN named_campaigns USING (campaign_id)
