-- The instance, name and status of each campaign id that belongs to one instance only: with the performance of a campaign, the
-- API does not state them.
CREATE OR REPLACE VIEW named_campaigns AS
SELECT
    campaign_id,
    any_value(instance_id) AS instance_id,
    any_value(campaign_name) AS campaign_name,
    any_value(status) AS campaign_status
FROM campaigns
GROUP BY campaign_id
HAVING count(*) = 1;
