-- What posts recorded on each day. Rows with an absurd value are left out. Negative counts correct those of an earlier day.
--
--   campaign_post_days   a post of a campaign on a day
--   post_days            a post on a day, once: of a post in several campaigns, the row with the lowest campaign id of that day.
--                        Its ad spend is within the bounds of all of them. If these disagree, the ad spend is unknown

CREATE OR REPLACE TABLE campaign_post_days AS
SELECT
    date, instance_id, campaign_id, post_id,
    {%- for metric in metrics %}
    CAST({{ metric.column }} AS {{ metric.type }}) AS {{ metric.name }},
    {%- endfor %}
    creator_id, platform, content_type,
    CAST(post_date AS DATE) AS publication_day,
    cost_low(paid_cpe, paid_engagements, paid_cpm, paid_impressions) AS low,
    cost_high(paid_cpe, paid_engagements, paid_cpm, paid_impressions) AS high,
    bounded(low, low, high) AS ad_spend_low,
    bounded(high, low, high) AS ad_spend_high
FROM post_metrics_daily
WHERE {{ within_limits }};

-- Few posts are in several campaigns, and only of these each day has to be looked at.
CREATE OR REPLACE TABLE several_campaigns AS
SELECT instance_id, post_id FROM campaign_post_days GROUP BY ALL HAVING min(campaign_id) <> max(campaign_id);

CREATE OR REPLACE TABLE merged_post_days AS
SELECT * REPLACE (bounded(low, low, high) AS ad_spend_low, bounded(high, low, high) AS ad_spend_high)
FROM (
    SELECT * REPLACE (max(low) OVER same_post AS low, min(high) OVER same_post AS high)
    FROM campaign_post_days SEMI JOIN several_campaigns USING (instance_id, post_id)
    WINDOW same_post AS (PARTITION BY date, instance_id, post_id)
    QUALIFY count(*) OVER same_post > 1 AND campaign_id = min(campaign_id) OVER same_post
);

CREATE OR REPLACE VIEW post_days AS
FROM campaign_post_days ANTI JOIN merged_post_days USING (date, instance_id, post_id)
UNION ALL BY NAME FROM merged_post_days;
