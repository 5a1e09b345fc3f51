-- What the programme cost in the last three whole months, and the sales through affiliate links in the same time.
SELECT
    (SELECT sum(content_cost) + sum(ad_spend) FROM campaign_costs_monthly WHERE month IN (
        SELECT DISTINCT month FROM campaign_costs_monthly ORDER BY month DESC LIMIT 3
    )) AS cost,
    (SELECT sum(affiliate_links_sales) FROM campaign_results WHERE time_window = '90d') AS sales_of_90_days
