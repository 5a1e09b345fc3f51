-- What the report shows, from the rollup tables of the lake: each `report_…` is a table of the page.
--
-- A row is of all instances (instance_id is null), of one instance, or of one campaign (campaign_id is not null). The page shows
-- rows in the order of `place`.
{%- set key = "time_window, instance_id, campaign_id" %}
{%- set rates = "organic_engagement_rate, organic_engagements_posts, paid_engagement_rate, paid_engagements_posts" %}
{%- set results = "posts, organic_impressions, paid_impressions, organic_engagements, paid_engagements, " ~ rates ~ ", rate_ratio" %}
{%- set most_seen = "coalesce(organic_impressions + paid_impressions, organic_impressions, paid_impressions) DESC NULLS LAST" %}
{%- set place = "rank() OVER (ORDER BY " ~ most_seen ~ ") AS place" %}
{%- set instance = "nullif(instance_id, '') AS instance_id" %}

CREATE OR REPLACE TABLE report_figures AS
WITH returns AS (
    SELECT
        time_window, instance_id, NULL AS campaign_id, sum(CAST(ad_spend AS DECIMAL(28, 6))) AS campaign_ad_spend,
        sum(CAST(return_on_ad_spend * ad_spend AS DECIMAL(28, 6)))
            / nullif(sum(CAST(ad_spend AS DECIMAL(28, 6))) FILTER (return_on_ad_spend IS NOT NULL), 0) AS return_on_ad_spend
    FROM campaign_results
    GROUP BY GROUPING SETS ((time_window), (time_window, instance_id))
    HAVING grouping(instance_id) = 1 OR instance_id IS NOT NULL
    UNION ALL BY NAME
    SELECT
        {{ key }}, campaign_name, campaign_status, ad_spend AS campaign_ad_spend, return_on_ad_spend, tracking_links_conversions
    FROM campaign_results WHERE instance_id IS NOT NULL
),
every AS (
    SELECT NULL AS campaign_id, * REPLACE (nullif(instance_id, '') AS instance_id) FROM organic_paid_overall
    UNION ALL BY NAME FROM organic_paid_by_campaign
    UNION ALL BY NAME FROM returns
)
SELECT {{ place }}, * EXCLUDE (scope)
FROM (SELECT {{ key }}, any_value(COLUMNS(* EXCLUDE ({{ key }}))) FROM every GROUP BY {{ key }});

-- Platforms, and the content types of each.
CREATE OR REPLACE TABLE report_parts AS
SELECT {{ place }}, *
FROM (
    SELECT 'platform' AS kind, time_window, {{ instance }}, platform, {{ results }} FROM organic_paid_by_platform
    UNION ALL BY NAME
    SELECT 'content' AS kind, time_window, {{ instance }}, platform, content_type, {{ results }} FROM organic_paid_by_content_type
);

-- The creators of each instance with the most impressions.
CREATE OR REPLACE TABLE report_creators AS
SELECT
    {{ place }}, time_window, instance_id, creator_id, creator_handle_name AS handle, creator_full_name AS name, creator_profile_link AS link,
    {{ results }}
FROM organic_paid_by_creator
QUALIFY row_number() OVER (PARTITION BY time_window, instance_id ORDER BY {{ most_seen }}, creator_id) <= {{ most_creators }};

-- Posts that were never paid for, and are organically above three quarters of their peers.
{%- set best = "organic_impressions_percentile + organic_engagement_rate_percentile DESC" %}
CREATE OR REPLACE TABLE report_posts AS
SELECT
    rank() OVER (ORDER BY {{ best }}) AS place,
    instance_id, post_id, coalesce(creator_full_name, creator_handle_name) AS name, platform, content_type, content_url AS link,
    age, peers, organic_impressions, organic_impressions_percentile, organic_engagement_rate, organic_engagement_rate_percentile
FROM posts
WHERE first_paid_day IS NULL AND organic_impressions_percentile >= 75 AND organic_engagement_rate_percentile >= 75
QUALIFY row_number() OVER (PARTITION BY instance_id ORDER BY {{ best }}, post_id) <= {{ most_posts }};

CREATE OR REPLACE TABLE report_days AS
SELECT
    date, instance_id, campaign_id
    {%- for name in ("organic_impressions", "paid_impressions", "organic_engagements", "paid_engagements") %},
    CAST(sum({{ name }}) AS BIGINT) AS {{ name }}
    {%- endfor %}
FROM (
    SELECT NULL AS campaign_id, * FROM organic_paid_daily
    UNION ALL BY NAME SELECT NULL AS campaign_id, * REPLACE (NULL AS instance_id) FROM organic_paid_daily
    UNION ALL BY NAME FROM organic_paid_daily_by_campaign
)
GROUP BY ALL;
