-- Networks of each window and scope. Those of a campaign are summed over its days, over which numbers of posts do not add up.
{%- set key = "time_window, instance_id, campaign_id, platform" %}
{%- set counts = ("organic_impressions", "paid_impressions", "organic_rate_engagements", "organic_rate_impressions",
    "paid_rate_engagements", "paid_rate_impressions", "paid_engagements_with_ad_spend", "paid_impressions_with_ad_spend") %}
{%- set money = ("ad_spend", "ad_spend_with_paid_engagements", "ad_spend_with_paid_impressions") %}
WITH of_days AS (
    SELECT
        {{ key }},
        {%- for name in counts %}
        CAST(sum({{ name }}) AS BIGINT) AS {{ name }},
        {%- endfor %}
        {%- for name in money %}
        CAST(sum(CAST({{ name }} AS DECIMAL(28, 6))) AS DOUBLE) AS {{ name }}{{ "," if not loop.last }}
        {%- endfor %}
    FROM organic_paid_daily_by_campaign
    JOIN windows ON date BETWEEN first_day AND last_day
    SEMI JOIN report_results USING (instance_id, campaign_id)
    WHERE NOT is_previous
    GROUP BY ALL
),
recorded AS (
    SELECT
        time_window, nullif(instance_id, '') AS instance_id, NULL AS campaign_id, platform, posts, organic_impressions,
        paid_impressions, ad_spend, organic_engagement_rate, paid_engagement_rate, paid_share_of_impressions, paid_cpm,
        ad_spend_per_engagement, plus(previous_organic_impressions, previous_paid_impressions) AS previous_impressions
    FROM organic_paid_by_platform
    UNION ALL BY NAME
    SELECT
        {{ key }}, organic_impressions, paid_impressions, ad_spend,
        rate(organic_rate_engagements, organic_rate_impressions) AS organic_engagement_rate,
        rate(paid_rate_engagements, paid_rate_impressions) AS paid_engagement_rate,
        quotient(100.0 * paid_impressions, organic_impressions + paid_impressions) AS paid_share_of_impressions,
        quotient(1000 * ad_spend_with_paid_impressions, paid_impressions_with_ad_spend) AS paid_cpm,
        quotient(ad_spend_with_paid_engagements, paid_engagements_with_ad_spend) AS ad_spend_per_engagement
    FROM of_days
),
published AS (
    SELECT {{ key }}, published_posts, posts_of_known_cost, content_cost
    FROM published_sums
    WHERE NOT is_previous AND NOT is_of_all_platforms
),
together AS (
    SELECT {{ key }}, any_value(COLUMNS(* EXCLUDE ({{ key }})))
    FROM (FROM recorded UNION ALL BY NAME FROM published)
    GROUP BY {{ key }}
)
SELECT
    rank() OVER (ORDER BY plus(organic_impressions, paid_impressions) DESC NULLS LAST) AS place,
    * REPLACE (coalesce(published_posts, 0) AS published_posts, coalesce(posts_of_known_cost, 0) AS posts_of_known_cost),
    plus(organic_impressions, paid_impressions) AS impressions
FROM together
