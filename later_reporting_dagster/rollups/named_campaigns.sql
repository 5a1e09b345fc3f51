-- The instance, name, status and start of each campaign id: with the performance of a campaign, the API does not state them. The
-- instance is the only one that has the id, by the first of these that has only one: the list of campaigns, what the API says
-- with a period nevertheless, the posts of the campaign.
CREATE OR REPLACE VIEW named_campaigns AS
WITH instances AS (
    SELECT campaign_id, instance_id, 1 AS source FROM campaigns
    UNION SELECT campaign_id, nullif(extra ->> '$.instanceId', ''), 2 FROM campaign_performance_periods
    UNION SELECT unnest(campaign_ids), instance_id, 3 FROM known_posts
),
agreed AS (
    SELECT campaign_id, source, any_value(instance_id) AS instance_id
    FROM instances
    WHERE instance_id IS NOT NULL
    GROUP BY ALL
    HAVING count(*) = 1
)
SELECT
    campaign_id, instance_id, campaign_name, status AS campaign_status,
    CAST(least(start_date, first_post_date) AS DATE) AS started_on
FROM (SELECT campaign_id, arg_min(instance_id, source) AS instance_id FROM agreed GROUP BY campaign_id)
LEFT JOIN campaigns USING (campaign_id, instance_id);
