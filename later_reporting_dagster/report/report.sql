-- What the report shows, from the rollup tables of the lake: each `report_…` is a table of the page.
--
-- A row is of all instances (instance_id is null), of one instance, or of one campaign (campaign_id is not null). The page shows
-- rows in the order of `place`.
{%- set key = "time_window, instance_id, campaign_id" %}
{%- set results = "posts, organic_impressions, paid_impressions, organic_impressions_posts, organic_engagement_rate, paid_engagement_rate,
    organic_rate_posts, paid_rate_posts, rate_ratio" %}
{%- set most_seen = "coalesce(organic_impressions + paid_impressions, organic_impressions, paid_impressions) DESC NULLS LAST" %}
{%- set place = "rank() OVER (ORDER BY " ~ most_seen ~ ") AS place" %}
{%- set windows = "SELECT DISTINCT time_window, first_day, last_day FROM periods" %}
{%- set counts = ("organic_impressions", "paid_impressions", "organic_engagements", "paid_engagements", "organic_rate_engagements",
    "organic_rate_impressions", "paid_rate_engagements", "paid_rate_impressions") %}
{%- set totals = ("reach", "ad_spend", "return_on_ad_spend", "paid_clicks", "tracking_links_conversions", "organic_impressions",
    "paid_impressions") %}

CREATE OR REPLACE TABLE periods AS
SELECT time_window, instance_id, first_day, last_day, days = days_expected AS is_complete
FROM organic_paid_overall;

-- What Later totals for campaigns, instances and all together, if the lake has the same days.
CREATE OR REPLACE TABLE totals AS
WITH of_api AS (
    FROM campaign_results WHERE instance_id IS NOT NULL
    UNION ALL BY NAME
    SELECT
        accounts.*, time_window, impressions AS organic_impressions, paid_ad_spend AS ad_spend,
        paid_return_on_ad_spend AS return_on_ad_spend
    FROM (SELECT * FROM instance_performance_periods WHERE date_basis = 'performance_date') AS accounts
    JOIN (SELECT DISTINCT time_window, first_day AS from_day FROM periods) ON
        period = time_window OR time_window IN ('this_month', 'last_month') AND period = 'recorded_month' AND first_day = from_day
)
SELECT
    {{ key }}, campaign_name, campaign_status,
    newest_day - of_api.first_day AS totals_first_age, newest_day - of_api.last_day AS totals_last_age,
    {%- for name in totals %}
    CASE WHEN is_complete AND of_api.first_day = periods.first_day AND of_api.last_day = periods.last_day THEN {{ name }} END AS {{ name }},
    {%- endfor %}
FROM of_api
CROSS JOIN newest
LEFT JOIN periods USING (time_window, instance_id);

CREATE OR REPLACE TABLE report_accounts AS
SELECT * EXCLUDE (campaign_id, campaign_name, campaign_status) REPLACE (nullif(instance_id, '') AS instance_id)
FROM totals WHERE campaign_id IS NULL;

CREATE OR REPLACE TABLE report_figures AS
WITH results AS (
    SELECT * REPLACE (nullif(instance_id, '') AS instance_id), NULL AS campaign_id FROM organic_paid_overall
    UNION ALL BY NAME
    -- The ad spend of a campaign is the one that Later totals.
    SELECT * EXCLUDE (ad_spend, ad_spend_low, ad_spend_high, previous_ad_spend) FROM organic_paid_by_campaign
    UNION ALL BY NAME
    SELECT * EXCLUDE (organic_impressions, paid_impressions) FROM totals WHERE campaign_id IS NOT NULL
),
creators AS (
    SELECT time_window, instance_id, count(*) AS creators FROM organic_paid_by_creator
    GROUP BY GROUPING SETS ((time_window, instance_id), (time_window))
),
of_scopes AS (
    SELECT {{ key }}, any_value(COLUMNS(* EXCLUDE ({{ key }}, scope)))
    FROM (FROM results UNION ALL BY NAME FROM creators)
    GROUP BY {{ key }}
)
SELECT
    {{ place }}, {{ key }}, campaign_name, campaign_status, first_day, last_day, days, days_expected, previous_days,
    posts, organic_impressions, paid_impressions, organic_engagements, paid_engagements, organic_impressions_posts, paid_impressions_posts,
    organic_engagement_rate, paid_engagement_rate, rate_ratio, same_post_rate_ratio, same_posts, same_posts_paid_higher,
    paid_share_of_impressions, creators,
    previous_organic_impressions, previous_paid_impressions, previous_organic_engagements, previous_paid_engagements,
    previous_organic_engagement_rate, previous_paid_engagement_rate, previous_ad_spend,
    newest_day - previous_first_day AS previous_first_age, newest_day - previous_last_day AS previous_last_age,
    reach, ad_spend, ad_spend_per_engagement, return_on_ad_spend, paid_clicks, tracking_links_conversions, totals_first_age, totals_last_age,
    100 * (ad_spend_high - ad_spend_low) / nullif(ad_spend_high + ad_spend_low, 0) AS ad_spend_uncertainty,
    100.0 * paid_engagements / nullif(organic_engagements + paid_engagements, 0) AS paid_share_of_engagements
FROM of_scopes, newest;

-- Content cost of the posts that were published in a window, as far as it is known by now. A post of several campaigns costs each.
-- Posts from before the lake are left out, and campaigns without figures, which the page does not know.
CREATE OR REPLACE TABLE report_published AS
WITH published AS (
    SELECT time_window, posts.*
    FROM posts JOIN ({{ windows }}) AS windows ON CAST(post_date AS DATE) BETWEEN windows.first_day AND windows.last_day
    WHERE is_published
),
scoped AS (
    SELECT *, NULL AS campaign_id FROM published
    UNION ALL BY NAME SELECT * REPLACE (NULL AS instance_id), NULL AS campaign_id FROM published
    UNION ALL BY NAME
    FROM (SELECT *, unnest(campaign_ids) AS campaign_id FROM published) SEMI JOIN report_figures USING (instance_id, campaign_id)
)
SELECT
    {{ key }},
    count(*) AS published_posts,
    count(*) FILTER (content_cost IS NULL) AS posts_of_unknown_cost,
    sum(CAST(content_cost AS DECIMAL(28, 6))) AS content_cost,
    100 * sum(CAST(content_cost_high - content_cost_low AS DECIMAL(28, 6)))
        / nullif(sum(CAST(content_cost_high + content_cost_low AS DECIMAL(28, 6))), 0) AS content_cost_uncertainty,
    quotient(
        sum(CAST(content_cost AS DECIMAL(28, 6))) FILTER (organic_engagements IS NOT NULL),
        sum(organic_engagements) FILTER (content_cost IS NOT NULL)
    ) AS content_cost_per_engagement
FROM scoped
GROUP BY ALL;

-- Networks, and the content types of each. Networks of a campaign are summed over its days, over which numbers of posts do not
-- add up.
CREATE OR REPLACE TABLE report_parts AS
WITH of_campaigns AS (
    SELECT
        {{ key }}, platform,
        {%- for name in counts %}
        CAST(sum({{ name }}) AS BIGINT) AS {{ name }},
        {%- endfor %}
        rate(sum(organic_rate_engagements), sum(organic_rate_impressions)) AS organic_engagement_rate,
        rate(sum(paid_rate_engagements), sum(paid_rate_impressions)) AS paid_engagement_rate
    FROM organic_paid_daily_by_campaign
    JOIN ({{ windows }}) AS windows ON date BETWEEN first_day AND last_day
    SEMI JOIN report_figures USING (instance_id, campaign_id)
    GROUP BY ALL
)
SELECT {{ place }}, * REPLACE (nullif(instance_id, '') AS instance_id)
FROM (
    SELECT 'platform' AS kind, time_window, instance_id, platform, {{ results }}, same_post_rate_ratio, same_posts FROM organic_paid_by_platform
    UNION ALL BY NAME
    SELECT 'content' AS kind, time_window, instance_id, platform, content_type, {{ results }}, same_post_rate_ratio, same_posts
    FROM organic_paid_by_content_type
    UNION ALL BY NAME
    SELECT
        'platform' AS kind, * EXCLUDE (organic_engagements, paid_engagements, organic_rate_engagements, paid_rate_engagements),
        quotient(paid_engagement_rate, organic_engagement_rate) AS rate_ratio
    FROM of_campaigns
);

-- The creators of each instance with the most impressions, and those with the highest ranks.
CREATE OR REPLACE TABLE report_creators AS
SELECT
    {{ place }}, time_window, instance_id, creator_id, creator_handle_name AS handle, creator_full_name AS name, creator_profile_link AS link,
    {{ results }}, median_percentile
FROM organic_paid_by_creator
LEFT JOIN (SELECT instance_id, creator_id, median_percentile FROM ranks WHERE campaign_id IS NULL) AS ranks
    USING (instance_id, creator_id)
QUALIFY row_number() OVER (PARTITION BY time_window, instance_id ORDER BY {{ most_seen }}, creator_id) <= {{ most_creators }}
    OR median_percentile IS NOT NULL AND row_number() OVER (
        PARTITION BY time_window, instance_id ORDER BY median_percentile DESC NULLS LAST, creator_id
    ) <= {{ most_creators }};

-- Young posts that were never paid for, and are organically above three quarters of their peers. Stories expire after a day, and
-- posts in groups cannot be paid for.
{%- set best = "organic_impressions_percentile + organic_engagement_rate_percentile DESC" %}
CREATE OR REPLACE TABLE report_posts AS
SELECT
    rank() OVER (ORDER BY {{ best }}) AS place,
    instance_id, campaign_ids, post_id, coalesce(creator_full_name, creator_handle_name) AS name, platform, content_type,
    content_url AS link, age, peers,
    organic_impressions, organic_impressions_percentile, organic_engagement_rate, organic_engagement_rate_percentile
FROM posts
WHERE
    age <= 14 AND coalesce(content_type, '') NOT LIKE '%story%' AND coalesce(content_type, '') <> 'facebook_group'
    AND first_paid_day IS NULL
    AND coalesce(paid_impressions, 0) = 0 AND coalesce(paid_engagements, 0) = 0
    AND organic_impressions_percentile >= 75 AND organic_engagement_rate_percentile >= 75
QUALIFY row_number() OVER (PARTITION BY instance_id ORDER BY {{ best }}, post_id) <= 25;

-- Days; from an age of 91 days on, weeks, which are seven days from a multiple of seven on.
CREATE OR REPLACE TABLE report_days AS
WITH scoped AS (
    SELECT *, NULL AS campaign_id FROM organic_paid_daily
    UNION ALL BY NAME SELECT * REPLACE (NULL AS instance_id), NULL AS campaign_id FROM organic_paid_daily
    UNION ALL BY NAME FROM organic_paid_daily_by_campaign SEMI JOIN report_results USING (instance_id, campaign_id)
)
SELECT
    instance_id, campaign_id,
    CASE WHEN newest_day - date < 91 THEN newest_day - date ELSE (newest_day - date) // 7 * 7 END AS age,
    max(newest_day - date) AS oldest_age
    {%- for name in counts %},
    CAST(sum({{ name }}) AS BIGINT) AS {{ name }}
    {%- endfor %},
    CAST(sum(CAST(ad_spend AS DECIMAL(28, 6))) AS DOUBLE) AS ad_spend
FROM scoped, newest
GROUP BY ALL;
