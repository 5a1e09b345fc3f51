-- The results of each window and scope: of all instances (instance_id is null), of one, or of one campaign (campaign_id is not
-- null). A campaign has a row if it has results, published posts or totals of Later.
{%- set key = "time_window, instance_id, campaign_id" %}
{%- set previous = ("posts", "organic_impressions", "paid_impressions", "organic_engagements", "paid_engagements",
    "organic_engagement_rate", "paid_engagement_rate", "ad_spend") %}
WITH recorded AS (
    SELECT * REPLACE (nullif(instance_id, '') AS instance_id), NULL AS campaign_id FROM organic_paid_overall
    UNION ALL BY NAME FROM organic_paid_by_campaign
),
published AS (FROM published_sums WHERE is_of_all_platforms),
creators AS (
    SELECT time_window, instance_id, NULL AS campaign_id, count(*) AS creators FROM organic_paid_by_creator
    GROUP BY GROUPING SETS ((time_window, instance_id), (time_window))
),
cost_of_months AS (
    SELECT time_window, is_previous, monthly_cost.*
    FROM monthly_cost JOIN windows ON month = first_day
    WHERE time_window = 'last_month'
),
scopes AS (
    SELECT {{ key }} FROM recorded
    UNION SELECT {{ key }} FROM published WHERE NOT is_previous
    UNION SELECT {{ key }} FROM later_totals WHERE NOT is_previous
),
-- One row for each scope: `any_value` takes the only value that is not null.
together AS (
    SELECT {{ key }}, any_value(COLUMNS(* EXCLUDE ({{ key }})))
    FROM (
        SELECT
            {{ key }}, posts, paid_posts, organic_impressions_posts, organic_impressions, paid_impressions, organic_engagements,
            paid_engagements, organic_rate_engagements, organic_rate_impressions, paid_rate_engagements, paid_rate_impressions,
            organic_engagement_rate, paid_engagement_rate, paid_share_of_impressions, ad_spend, paid_cpm, ad_spend_per_engagement,
            {%- for name in previous %}
            previous_{{ name }}{{ "," if not loop.last }}
            {%- endfor %}
        FROM recorded
        UNION ALL BY NAME FROM creators
        UNION ALL BY NAME SELECT * EXCLUDE (is_previous, is_of_all_platforms, platform) FROM published WHERE NOT is_previous
        UNION ALL BY NAME
        SELECT
            {{ key }}, published_posts AS previous_published_posts, posts_of_known_cost AS previous_posts_of_known_cost,
            content_cost AS previous_content_cost
        FROM published WHERE is_previous
        UNION ALL BY NAME SELECT {{ key }}, content_cost_total, content_cost_total_posts FROM cost_of_months WHERE NOT is_previous
        UNION ALL BY NAME SELECT {{ key }}, content_cost_total AS previous_content_cost_total FROM cost_of_months WHERE is_previous
        UNION ALL BY NAME
        SELECT
            {{ key }}, ad_spend AS later_ad_spend, return_on_ad_spend, paid_clicks, ad_spend_per_click,
            plus(tracking_links_conversion_value, affiliate_links_sales) AS links_and_affiliate_sales
        FROM later_totals WHERE NOT is_previous AND withheld IS NULL
        UNION ALL BY NAME
        SELECT {{ key }}, return_on_ad_spend AS previous_return_on_ad_spend FROM later_totals WHERE is_previous AND withheld IS NULL
        UNION ALL BY NAME SELECT {{ key }}, withheld, true AS is_stated FROM later_totals WHERE NOT is_previous
    )
    GROUP BY {{ key }}
),
-- Comparable periods have all their days, so that what has no row in the one before had no posts in it.
counted AS (
    SELECT
        together.* REPLACE (
            coalesce(published_posts, 0) AS published_posts,
            coalesce(posts_of_known_cost, 0) AS posts_of_known_cost,
            coalesce(content_cost_per_engagement_posts, 0) AS content_cost_per_engagement_posts,
            CASE WHEN comparison IS NOT NULL THEN coalesce(previous_published_posts, 0) END AS previous_published_posts,
            CASE WHEN comparison IS NOT NULL THEN coalesce(previous_posts_of_known_cost, 0) END AS previous_posts_of_known_cost,
            CASE WHEN comparison IS NOT NULL THEN previous_content_cost END AS previous_content_cost,
            CASE WHEN comparison IS NOT NULL THEN previous_return_on_ad_spend END AS previous_return_on_ad_spend,
            -- As after an instance is retired: the total is of exactly some instances, and a fetch has the next.
            CASE WHEN is_stated OR campaign_id IS NOT NULL THEN withheld
                ELSE 'Later’s totals of these instances and days are not fetched'
            END AS withheld
        ),
        scope_days.* EXCLUDE (time_window, instance_id),
        coalesce(content_cost_total, content_cost) AS creators_cost,
        -- Without a published post, there is no cost to know.
        coalesce(posts_of_known_cost, 0) = coalesce(published_posts, 0) AS is_known_of_posts,
        comparison IS NOT NULL
            AND coalesce(previous_posts_of_known_cost, 0) = coalesce(previous_published_posts, 0) AS was_known_of_posts
    FROM together
    SEMI JOIN scopes ON {% for name in key.split(", ") %}together.{{ name }} IS NOT DISTINCT FROM scopes.{{ name }}{{ " AND " if not loop.last }}{% endfor %}
    LEFT JOIN scope_days
        ON scope_days.time_window = together.time_window AND scope_days.instance_id IS NOT DISTINCT FROM together.instance_id
)
SELECT
    rank() OVER (ORDER BY plus(creators_cost, ad_spend) DESC NULLS LAST, plus(organic_impressions, paid_impressions) DESC NULLS LAST)
        AS place,
    * EXCLUDE (is_known_of_posts, was_known_of_posts, previous_content_cost_total, later_ad_spend, is_stated),
    plus(organic_impressions, paid_impressions) AS impressions,
    plus(previous_organic_impressions, previous_paid_impressions) AS previous_impressions,
    plus(organic_engagements, paid_engagements) AS engagements,
    plus(previous_organic_engagements, previous_paid_engagements) AS previous_engagements,
    100.0 * paid_engagements / nullif(organic_engagements + paid_engagements, 0) AS paid_share_of_engagements,
    content_cost_total IS NOT NULL OR is_known_of_posts AS is_cost_known,
    plus(creators_cost, ad_spend) AS cost,
    CASE WHEN is_known_of_posts AND was_known_of_posts
        THEN plus(coalesce(previous_content_cost_total, previous_content_cost), previous_ad_spend)
    END AS previous_cost,
    later_ad_spend * return_on_ad_spend AS implied_revenue,
    rate(CASE WHEN withheld IS NULL THEN paid_clicks END, paid_impressions) AS paid_click_rate
FROM counted
JOIN (SELECT time_window, first_day, last_day FROM windows WHERE NOT is_previous) AS of_window USING (time_window)
