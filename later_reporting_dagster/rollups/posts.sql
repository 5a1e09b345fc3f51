-- Each post once, with its results to date, its costs, and where it stands among posts of its kind and age.
WITH days AS (
    SELECT
        instance_id, post_id,
        arg_max(publication_day, date) AS results_on,
        sum(organic_impressions) AS organic_impressions,
        rate(
            sum(organic_engagements) FILTER (organic_impressions <> 0),
            sum(organic_impressions) FILTER (organic_impressions <> 0 AND organic_engagements IS NOT NULL)
        ) AS organic_engagement_rate,
        -- With the ad spend of a part of its days, it is unknown what a post has cost.
        CASE WHEN count(ad_spend_low) = count(low) THEN sum(ad_spend_low) END AS spend_low,
        CASE WHEN count(ad_spend_low) = count(low) THEN sum(ad_spend_high) END AS spend_high,
        min(date) FILTER (paid_impressions > 0 OR paid_engagements > 0) AS first_paid_day,
        max(date) FILTER (paid_impressions > 0 OR paid_engagements > 0) AS last_paid_day,
        max(paid_impressions) FILTER (paid_impressions > 0) AS peak_paid_impressions,
        arg_min(date, (-paid_impressions, date)) FILTER (paid_impressions > 0) AS peak_paid_day
    FROM post_days
    GROUP BY ALL
),
stored_days AS (
    SELECT instance_id, published_on, count(*) AS days
    FROM (SELECT DISTINCT instance_id, published_on FROM known_posts) AS published
    JOIN stored_files USING (instance_id)
    WHERE table_name = 'post_metrics_daily' AND date >= published_on
    GROUP BY ALL
),
-- By days, what each post had earned at its present age, and its peers at each age. A post is not ranked if it was not seen on
-- each day since its publication, or is {{ maximum_age }} days old.
earned AS (
    SELECT instance_id, post_id, platform, content_type, age, 1 AS peer, organic_impressions, organic_engagement_rate
    FROM post_ages WHERE is_peer
    UNION ALL
    SELECT instance_id, post_id, platform, content_type, age, 0, organic_impressions, organic_engagement_rate
    FROM aged_posts JOIN days USING (instance_id, post_id)
    WHERE NOT is_peer AND age < least(ages_seen, {{ maximum_age }})
),
measured AS (
    SELECT * EXCLUDE (organic_impressions, organic_engagement_rate), 'impressions' AS measure, organic_impressions AS value
    FROM earned WHERE organic_impressions IS NOT NULL
    UNION ALL
    SELECT * EXCLUDE (organic_impressions, organic_engagement_rate), 'rate', organic_engagement_rate
    FROM earned WHERE organic_engagement_rate IS NOT NULL
),
-- Of the peers, itself excluded, those below the post, and half of those that equal it.
ranked AS (
    SELECT
        instance_id, post_id, age, measure,
        sum(peer) OVER of_kind - peer AS peers,
        coalesce(sum(peer) OVER (of_kind ORDER BY value GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS below,
        sum(peer) OVER (of_kind ORDER BY value GROUPS BETWEEN CURRENT ROW AND CURRENT ROW) - peer AS equal
    FROM measured
    WINDOW of_kind AS (PARTITION BY platform, content_type, age, measure)
),
percentiles AS (
    SELECT
        instance_id, post_id,
        {%- for name, measure in (("organic_impressions", "impressions"), ("organic_engagement_rate", "rate")) %}
        max(CASE WHEN peers >= {{ minimum_peers }} THEN round_significant(100 * (below + equal / 2) / peers) END)
            FILTER (measure = '{{ measure }}') AS {{ name }}_percentile,
        {%- endfor %}
        max(peers) FILTER (measure = 'impressions') AS peers
    FROM ranked JOIN aged_posts USING (instance_id, post_id, age)
    GROUP BY ALL
),
published_files AS (
    SELECT instance_id, date AS published_on FROM stored_files WHERE table_name = 'posts_published'
),
-- Posts that are not in the file of the day which their results name, and when the first results that name it were requested.
absent AS (
    SELECT instance_id, post_id, requested_at(instance_id, min(date)) AS results_requested_at
    FROM post_days JOIN (
        SELECT instance_id, post_id, results_on
        FROM (SELECT instance_id, post_id, results_on, results_on AS published_on, results_on AS date FROM days)
        SEMI JOIN published_files USING (instance_id, published_on)
        ANTI JOIN published_rows USING (instance_id, post_id, date)
    ) USING (instance_id, post_id)
    WHERE publication_day = results_on
    GROUP BY instance_id, post_id
),
known AS (
    SELECT
        known_posts.*, last_day, last_day - published_on AS age, last_day - published_on + 1 AS days_expected,
        NOT is_published AND published_files.instance_id IS NOT NULL AS is_withdrawn, results_on, results_requested_at,
        coalesce(stored_days.days, 0) AS days, first_paid_day, last_paid_day, first_paid_day - published_on AS first_paid_age,
        peak_paid_day, peak_paid_impressions,
        CASE WHEN stored_days.days = days_expected THEN spend_low END AS ad_spend_low,
        CASE WHEN stored_days.days = days_expected THEN spend_high END AS ad_spend_high,
        middle(ad_spend_low, ad_spend_high) AS ad_spend,
        middle(content_cost_low, content_cost_high) AS content_cost
    FROM known_posts
    CROSS JOIN (
        SELECT coalesce(max(date) FILTER (table_name = 'post_metrics_daily'), max(date)) AS last_day FROM stored_files
    ) AS newest
    LEFT JOIN days USING (instance_id, post_id)
    LEFT JOIN stored_days USING (instance_id, published_on)
    LEFT JOIN absent USING (instance_id, post_id)
    LEFT JOIN published_files USING (instance_id, published_on)
)
SELECT
    known.*,
    {%- for rate in rates %}
    rate({{ rate.engagements }}, {{ rate.units }}) AS {{ rate.column }},
    {%- endfor %}
    {%- for share in shares %}
    rate({{ share.name }}, organic_impressions) AS {{ share.column }},
    {%- endfor %}
    -- What a post has cost is the same from its first day on, and what it earned for it is not.
    CASE WHEN age >= {{ comparable_age }} THEN quotient(content_cost, organic_engagements) END AS content_cost_per_engagement,
    quotient(ad_spend, paid_engagements) AS ad_spend_per_engagement,
    {%- if has_views %}
    CASE WHEN age >= {{ comparable_age }} THEN quotient(content_cost, organic_views) END AS content_cost_per_view,
    {%- endif %}
    organic_impressions_percentile, organic_engagement_rate_percentile, coalesce(peers, 0) AS peers
FROM known LEFT JOIN percentiles USING (instance_id, post_id)
