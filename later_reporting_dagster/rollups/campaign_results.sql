-- What the API totals for each campaign over exactly each window, with results in it.
SELECT
    CAST(period AS window_name) AS time_window, first_day, last_day,
    campaign_id, instance_id, campaign_name, campaign_status,
    posts_count AS posts, influencers_count AS creators, reach,
    paid_ad_spend AS ad_spend, paid_return_on_ad_spend AS return_on_ad_spend,
    paid_clicks, quotient(paid_ad_spend, paid_clicks) AS ad_spend_per_click,
    estimated_value_generated AS estimated_value,
    tracking_links_clicks, tracking_links_conversions, tracking_links_conversion_value,
    affiliate_links_clicks, affiliate_links_conversions, affiliate_links_sales, affiliate_links_commission_earned,
    -- Whole costs of posts over a part of their results.
    estimated_content_cost AS api_content_cost, cpe AS api_cpe, cpm AS api_cpm, estimated_roi AS api_roi,
    affiliate_links_roi AS api_affiliate_links_roi
FROM campaign_performance_periods
ANTI JOIN retired_campaigns USING (campaign_id)
LEFT JOIN named_campaigns USING (campaign_id)
WHERE period IN ({% for name in windows %}'{{ name }}'{{ ", " if not loop.last }}{% endfor %})
