-- Campaigns by month, as the API totals exactly the month: what was recorded in it, and the posts that were published in it.
WITH recorded AS (FROM campaign_performance_periods WHERE period = 'recorded_month'),
-- Earlier releases named it otherwise, and had no other kind: until both are fetched, there are no rows.
published AS (
    SELECT
        first_day, campaign_id, last_day AS published_until,
        posts_count AS published_posts, estimated_content_cost AS published_content_cost
    FROM campaign_performance_periods
    WHERE period = 'published_month'
),
-- A post of several campaigns is in each of them.
posts_of_campaigns AS (
    SELECT CAST(date_trunc('month', published_on) AS DATE) AS first_day, unnest(campaign_ids) AS campaign_id, content_cost_low
    FROM known_posts
    WHERE is_published
),
of_unknown_cost AS (
    SELECT first_day, campaign_id, count(*) AS posts FROM posts_of_campaigns WHERE content_cost_low IS NULL GROUP BY ALL
),
lake AS (
    SELECT least(
        (SELECT min(first_day) FROM campaign_performance_periods WHERE period LIKE '%month'),
        (SELECT date_trunc('month', min(date)) FROM stored_files WHERE table_name IN ('post_metrics_daily', 'posts_published'))
    ) AS first_month
)
SELECT
    first_day AS month, campaign_id, instance_id, campaign_name, campaign_status, started_on < first_month AS began_before_lake,
    last_day AS recorded_until, reach, paid_ad_spend AS ad_spend, paid_return_on_ad_spend AS return_on_ad_spend, paid_clicks,
    tracking_links_clicks, tracking_links_conversions, tracking_links_conversion_value,
    affiliate_links_clicks, affiliate_links_conversions, affiliate_links_sales, affiliate_links_commission_earned,
    published_until, published_posts, published_content_cost, coalesce(posts, 0) AS published_posts_of_unknown_own_cost
FROM recorded
FULL JOIN published USING (first_day, campaign_id)
CROSS JOIN lake
ANTI JOIN retired_campaigns USING (campaign_id)
LEFT JOIN of_unknown_cost USING (first_day, campaign_id)
LEFT JOIN named_campaigns USING (campaign_id)
