-- What is known about the campaign of each row of organic_paid_by_campaign: name and status, and by performance date spend
-- and return. `campaign_rows_by_window` has the row's number, range, instance and campaign.
{%- import "campaign_results.sql" as campaigns with context %}
WITH recorded_ranges AS (
    FROM window_ranges WHERE date_basis = 'performance_date' AND NOT is_previous
),
{{ campaigns.campaign_results("recorded_ranges") }},
{{ campaigns.campaign_instances("campaign_rows_by_window") }}
SELECT
    row_number, campaigns.campaign_name, campaigns.status AS campaign_status,
    -- Without an instance, the performance cannot be attributed to the row.
    CASE WHEN campaign_instances.campaign_id IS NOT NULL THEN campaign_range_days.days END AS campaign_days,
    campaign_results.* EXCLUDE (range_id, campaign_id, days)
FROM campaign_rows_by_window AS numbered
LEFT JOIN campaigns USING (instance_id, campaign_id)
LEFT JOIN campaign_instances USING (instance_id, campaign_id)
LEFT JOIN campaign_range_days ON campaign_range_days.range_id = numbered.range_id
LEFT JOIN campaign_results
    ON campaign_results.range_id = numbered.range_id AND campaign_results.campaign_id = campaign_instances.campaign_id
