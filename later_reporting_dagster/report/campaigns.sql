-- Names and states of the campaigns of the page: of the list of campaigns, else of the newest totals of Later.
WITH named AS (
    SELECT instance_id, campaign_id, campaign_name, status AS campaign_status, 1 AS source FROM campaigns
    UNION ALL BY NAME
    SELECT instance_id, campaign_id, campaign_name, campaign_status, 2 AS source FROM campaign_results
    UNION ALL BY NAME
    SELECT instance_id, campaign_id, campaign_name, 3 AS source FROM organic_paid_by_campaign
)
SELECT
    instance_id, campaign_id, arg_min(campaign_name, source) AS campaign_name, arg_min(campaign_status, source) AS campaign_status
FROM (SELECT DISTINCT instance_id, campaign_id FROM report_results WHERE campaign_id IS NOT NULL) AS campaigns_of_page
LEFT JOIN named USING (instance_id, campaign_id)
GROUP BY ALL
