-- The name, status and start of each campaign id with only one instance (`campaign_owners`), if that is listed with it: with the
-- performance of a campaign, the API does not state them.
CREATE OR REPLACE VIEW named_campaigns AS
SELECT
    campaign_id, instance_id, campaign_name, status AS campaign_status,
    CAST(least(start_date, first_post_date) AS DATE) AS started_on
FROM (SELECT campaign_id, any_value(instance_id) AS instance_id FROM campaign_owners GROUP BY campaign_id HAVING count(*) = 1)
LEFT JOIN campaigns USING (campaign_id, instance_id);
