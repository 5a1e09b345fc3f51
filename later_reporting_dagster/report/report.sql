-- What the report shows, from the rollup tables of the lake: each `report_…` is a table of the page. Nothing is computed again,
-- except the totals of campaigns together.
--
-- A row is of all instances (instance_id is null), of one instance, or of one campaign (campaign_id is not null). The page shows
-- rows in the order of `place`.
{%- set key = "time_window, instance_id, campaign_id" %}
{%- set rates = "organic_engagement_rate, organic_engagement_rate_posts, paid_engagement_rate, paid_engagement_rate_posts" %}
{%- set results = "posts, organic_impressions, paid_impressions, organic_engagements, paid_engagements, " ~ rates ~ ", rate_ratio" %}
{%- set most_seen = "coalesce(organic_impressions + paid_impressions, organic_impressions, paid_impressions) DESC NULLS LAST" %}
{%- set place = "rank() OVER (ORDER BY " ~ most_seen ~ ") AS place" %}

CREATE OR REPLACE TABLE report_figures AS
WITH returns AS (
    SELECT
        time_window, instance_id, NULL AS campaign_id, sum(CAST(paid_ad_spend AS DECIMAL(28, 6))) AS paid_ad_spend,
        sum(CAST(paid_return_on_ad_spend * paid_ad_spend AS DECIMAL(28, 6)))
            / nullif(sum(CAST(paid_ad_spend AS DECIMAL(28, 6))) FILTER (paid_return_on_ad_spend IS NOT NULL), 0) AS paid_return_on_ad_spend
    FROM campaign_results
    WHERE time_window <> '730d'
    GROUP BY GROUPING SETS ((time_window), (time_window, instance_id))
    HAVING grouping(instance_id) = 1 OR instance_id IS NOT NULL
    UNION ALL BY NAME
    SELECT
        {{ key }}, campaign_name, campaign_status, paid_ad_spend, paid_return_on_ad_spend, cost_per_click,
        tracking_links_conversions
    FROM campaign_results WHERE time_window <> '730d' AND instance_id IS NOT NULL
),
costs AS (
    SELECT * EXCLUDE (first_day, last_day, days, days_expected, posts), posts AS published_posts
    FROM (SELECT NULL AS campaign_id, * FROM costs_overall UNION ALL BY NAME FROM costs_by_campaign)
),
every AS (
    SELECT NULL AS campaign_id, * FROM organic_paid_overall
    UNION ALL BY NAME FROM organic_paid_by_campaign
    UNION ALL BY NAME FROM costs
    UNION ALL BY NAME FROM returns
)
SELECT {{ place }}, * FROM (SELECT {{ key }}, any_value(COLUMNS(* EXCLUDE ({{ key }}))) FROM every GROUP BY {{ key }});

-- Platforms, and the content types of each.
CREATE OR REPLACE TABLE report_parts AS
SELECT {{ place }}, *
FROM (
    SELECT 'platform' AS kind, time_window, instance_id, platform, {{ results }} FROM organic_paid_by_platform
    UNION ALL BY NAME
    SELECT 'content' AS kind, time_window, instance_id, platform, content_type, {{ results }} FROM organic_paid_by_content_type
)
WHERE posts > 0;

-- The creators of each instance with the most impressions.
CREATE OR REPLACE TABLE report_creators AS
SELECT
    {{ place }}, time_window, instance_id, creator_id, creator_handle_name AS handle, creator_full_name AS name, creator_profile_link AS link,
    {{ results }}
FROM organic_paid_by_creator
WHERE posts > 0
QUALIFY row_number() OVER (PARTITION BY time_window, instance_id ORDER BY {{ most_seen }}, creator_id) <= {{ most_creators }};

-- Posts to boost: not paid for, and organically above three quarters of their peers. Posts to stop: paid for in the last 7
-- days, and below three quarters of their peers.
{%- set best = "CASE advice WHEN 'boost' THEN -organic_impressions_percentile - organic_engagement_rate_percentile
    ELSE organic_engagement_rate_percentile END" %}
CREATE OR REPLACE TABLE report_posts AS
WITH advised AS (
    SELECT
        *,
        CASE
            WHEN coalesce(paid_impressions, 0) = 0 AND coalesce(paid_engagements, 0) = 0 THEN 'boost'
            WHEN paid_engagements_last_7_days > 0 THEN 'stop'
        END AS advice
    FROM post_benchmarks
)
SELECT
    rank() OVER (ORDER BY {{ best }}) AS place, advice,
    instance_id, post_id, coalesce(creator_full_name, creator_handle_name) AS name, platform, content_type, content_url AS link,
    age, peers, organic_impressions, organic_impressions_percentile, organic_engagement_rate,
    organic_engagement_rate_percentile, paid_impressions, paid_engagement_rate, paid_engagements_last_7_days
FROM advised
WHERE CASE advice
    WHEN 'boost' THEN organic_impressions_percentile >= 75 AND organic_engagement_rate_percentile >= 75
    WHEN 'stop' THEN organic_engagement_rate_percentile < 25
END
QUALIFY row_number() OVER (PARTITION BY advice, instance_id ORDER BY {{ best }}, post_id) <= {{ most_posts }};

CREATE OR REPLACE TABLE report_days AS
SELECT
    date, instance_id, campaign_id
    {%- for name in ("organic_impressions", "paid_impressions", "organic_engagements", "paid_engagements") %},
    CAST(sum({{ name }}) AS BIGINT) AS {{ name }}
    {%- endfor %}
FROM organic_paid_daily
GROUP BY GROUPING SETS ((date), (date, instance_id), (date, instance_id, campaign_id));
