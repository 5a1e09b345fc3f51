-- What the API totals for each campaign over exactly each window: one row per window and campaign with results in it.
WITH instances AS (
    -- The instance of each campaign id that belongs to only one: the API does not state it.
    SELECT campaign_id, min(instance_id) AS instance_id
    FROM campaigns
    GROUP BY campaign_id
    HAVING min(instance_id) = max(instance_id)
)
SELECT
    CAST(period AS {{ window_type }}) AS time_window, first_day, last_day,
    instances.instance_id, periods.campaign_id, campaign_name, status AS campaign_status,
    paid_ad_spend, paid_return_on_ad_spend, paid_clicks, quotient(paid_ad_spend, paid_clicks) AS cost_per_click,
    estimated_value_generated, reach, posts_count, influencers_count,
    tracking_links_clicks, tracking_links_conversions, tracking_links_conversion_value,
    affiliate_links_clicks, affiliate_links_conversions, affiliate_links_sales, affiliate_links_commission_earned,
    -- Whole costs of posts over a part of their results.
    estimated_content_cost AS api_content_cost, cpe AS api_cpe, cpm AS api_cpm, estimated_roi AS api_roi,
    affiliate_links_roi AS api_affiliate_links_roi
FROM campaign_performance_periods AS periods
ANTI JOIN retired_campaigns USING (campaign_id)
LEFT JOIN instances USING (campaign_id)
LEFT JOIN campaigns ON campaigns.instance_id = instances.instance_id AND campaigns.campaign_id = periods.campaign_id
WHERE period IN ('7d', '28d', '90d', '365d', '730d')
