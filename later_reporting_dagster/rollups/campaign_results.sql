-- What the API totals for each campaign over exactly each window, with results in it. This month is that of the newest window.
WITH newest AS (SELECT max(last_day) AS newest_day FROM campaign_performance_periods WHERE date_basis = 'performance_date'),
windows AS (
    SELECT
        campaign_performance_periods.*,
        TRY_CAST(
            CASE
                WHEN period <> 'recorded_month' THEN period
                WHEN first_day = date_trunc('month', newest_day) THEN 'this_month'
                WHEN first_day = date_trunc('month', newest_day) - INTERVAL 1 MONTH THEN 'last_month'
            END AS window_name
        ) AS time_window
    FROM campaign_performance_periods, newest
)
SELECT
    time_window, first_day, last_day, campaign_id, instance_id, campaign_name, campaign_status, started_on,
    time_window <> 'last_month' AND started_on >= first_day AS is_whole,
    posts_count AS posts, influencers_count AS creators, reach,
    paid_ad_spend AS ad_spend, paid_return_on_ad_spend AS return_on_ad_spend,
    paid_clicks, quotient(paid_ad_spend, paid_clicks) AS ad_spend_per_click,
    estimated_value_generated AS estimated_value,
    tracking_links_clicks, tracking_links_conversions, tracking_links_conversion_value,
    affiliate_links_clicks, affiliate_links_conversions, affiliate_links_sales, affiliate_links_commission_earned,
    -- Whole costs of posts over a part of their results.
    estimated_content_cost AS api_content_cost, cpe AS api_cpe, cpm AS api_cpm, estimated_roi AS api_roi,
    affiliate_links_roi AS api_affiliate_links_roi
FROM windows
ANTI JOIN retired_campaigns USING (campaign_id)
LEFT JOIN named_campaigns USING (campaign_id)
WHERE time_window IS NOT NULL
