-- Posts in each of the `periods`, with what they earned in it, and the creator, platform and content type of their newest row.
-- The parts of a rate are sums over the days that report engagements, and impressions other than 0; those of the ad spend per
-- engagement or impression, over the days that have both.
{%- set by_campaign = fact == "campaign_post_periods" %}
{%- if by_campaign %}
-- Here, a post counts in each of its campaigns. Those of one campaign are in post_periods already.
{%- endif %}
CREATE OR REPLACE TABLE {{ "several_period_sums" if by_campaign else "period_sums" }} AS
SELECT
    {{ period }}, instance_id, post_id, {{ "campaign_id" if by_campaign else "any_value(campaign_id) AS campaign_id" }},
    arg_max_null(creator_id, date) AS creator_id,
    arg_max_null(platform, date) AS platform,
    arg_max_null(content_type, date) AS content_type,
    {%- for metric in metrics %}
    CAST(sum({{ metric.name }}) AS {{ metric.type }}) AS {{ metric.name }},
    {%- endfor %}
    {%- for rate in rates %}
    CAST(sum({{ rate.engagements }}) FILTER ({{ rate.units }} <> 0) AS BIGINT) AS {{ rate.name }}_engagements,
    CAST(sum({{ rate.units }}) FILTER ({{ rate.units }} <> 0 AND {{ rate.engagements }} IS NOT NULL) AS BIGINT) AS {{ rate.name }}_{{ rate.unit }},
    {%- endfor %}
    CAST(sum(ad_spend_low) AS DECIMAL(18, 6)) AS ad_spend_low,
    CAST(sum(ad_spend_high) AS DECIMAL(18, 6)) AS ad_spend_high,
    CAST(sum(ad_spend_low + ad_spend_high) FILTER (paid_engagements IS NOT NULL) AS DECIMAL(18, 6)) AS twice_spend_with_engagements,
    CAST(sum(paid_engagements) FILTER (ad_spend_low IS NOT NULL) AS BIGINT) AS engagements_with_spend,
    CAST(sum(ad_spend_low + ad_spend_high) FILTER (paid_impressions IS NOT NULL) AS DECIMAL(18, 6)) AS twice_spend_with_impressions,
    CAST(sum(paid_impressions) FILTER (ad_spend_low IS NOT NULL) AS BIGINT) AS impressions_with_spend
FROM {{ "campaign_post_days SEMI JOIN several_campaigns USING (instance_id, post_id)" if by_campaign else "post_days" }}
JOIN periods ON date BETWEEN first_day AND last_day
GROUP BY ALL;

CREATE OR REPLACE VIEW {{ fact }} AS
SELECT
    *,
    -- A post with both rates.
    coalesce(organic_rate_impressions > 0 AND paid_rate_impressions > 0, false) AS is_same_post,
    is_same_post AND CAST(paid_rate_engagements AS HUGEINT) * organic_rate_impressions
        > CAST(organic_rate_engagements AS HUGEINT) * paid_rate_impressions AS is_paid_higher,
    CASE WHEN is_same_post
        THEN same_post_term(paid_rate_engagements, paid_rate_impressions, organic_rate_impressions)
    END AS same_post_paid,
    CASE WHEN is_same_post
        THEN same_post_term(organic_rate_engagements, organic_rate_impressions, paid_rate_impressions)
    END AS same_post_organic
{%- if by_campaign %}
FROM (
    FROM period_sums ANTI JOIN several_campaigns USING (instance_id, post_id)
    UNION ALL BY NAME FROM several_period_sums
);
{%- else %}
FROM period_sums;
{%- endif %}
