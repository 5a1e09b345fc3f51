-- Who made it: of each window, of all instances and of each, the creator or else the campaign with more than {{ notable_percent }} % of
-- the impressions of a channel, or of a change of at least as many percent. The change without it leaves it out of both periods.
{%- set measures = ("paid_impressions", "organic_impressions") %}
WITH instances AS (SELECT count(DISTINCT instance_id) AS number FROM scope_days WHERE instance_id IS NOT NULL),
groups AS (
    SELECT
        'creator' AS kind, time_window, instance_id, creator_id, NULL AS campaign_id, creator_full_name AS name,
        creator_handle_name AS handle, creator_profile_link AS link, ad_spend,
        {% for name in measures %}{{ name }}, previous_{{ name }}{{ ", " if not loop.last }}{% endfor %}
    FROM organic_paid_by_creator
    WHERE creator_id IS NOT NULL
    UNION ALL BY NAME
    SELECT
        'campaign' AS kind, time_window, instance_id, campaign_id, ad_spend,
        {% for name in measures %}{{ name }}, previous_{{ name }}{{ ", " if not loop.last }}{% endfor %}
    FROM organic_paid_by_campaign
),
scoped AS (
    SELECT *, instance_id AS of_instance FROM groups
    UNION ALL BY NAME SELECT * REPLACE (NULL AS instance_id), instance_id AS of_instance FROM groups
),
measured AS (
    {%- for name in measures %}
    SELECT
        scoped.* EXCLUDE ({% for each in measures %}{{ each }}, previous_{{ each }}{{ ", " if not loop.last }}{% endfor %}),
        '{{ name }}' AS measure, scoped.{{ name }} AS value, scoped.previous_{{ name }} AS value_before,
        results.{{ name }} AS total, results.previous_{{ name }} AS total_before,
        100 * scoped.ad_spend / nullif(results.ad_spend, 0) AS share_of_ad_spend,
        comparison IS NOT NULL AS is_comparable,
        previous_days_expected / days_expected AS per_day
    FROM scoped
    JOIN report_results AS results
        ON results.campaign_id IS NULL AND results.time_window = scoped.time_window
        AND results.instance_id IS NOT DISTINCT FROM scoped.instance_id
    {{- " UNION ALL BY NAME" if not loop.last }}
    {%- endfor %}
),
judged AS (
    SELECT
        * EXCLUDE (value_before, total_before, per_day, is_comparable),
        CASE WHEN is_comparable THEN coalesce(value_before, 0) END AS previous_value,
        CASE WHEN is_comparable THEN total_before END AS previous_total,
        100.0 * value / total AS share,
        100 * (total * per_day - previous_total) / nullif(previous_total, 0) AS change,
        100 * (quotient((total - value) * per_day, previous_total - previous_value) - 1) AS change_without,
        CASE WHEN abs(change) >= {{ notable_percent }}
            THEN 100 * (value * per_day - previous_value) / (total * per_day - previous_total)
        END AS share_of_change
    FROM measured
    WHERE value > 0 AND total > 0
),
-- A creator says more than a campaign, of which there are few.
first AS (
    FROM judged
    WHERE share > {{ notable_percent }} OR share_of_change > {{ notable_percent }}
    QUALIFY row_number() OVER (
        PARTITION BY time_window, instance_id
        ORDER BY kind DESC, share > {{ notable_percent }} DESC, greatest(share, share_of_change) DESC, measure DESC, of_instance,
            creator_id, campaign_id
    ) = 1
),
-- The post of the creator with the most paid impressions on a day of the window, and its campaign, if it has only one.
peaks AS (
    SELECT
        first.time_window, first.instance_id, first.kind,
        arg_max(posts, (peak_paid_impressions, posts.post_id)) AS post
    FROM first
    JOIN windows ON windows.time_window = first.time_window AND NOT is_previous
    JOIN posts ON posts.instance_id = of_instance AND posts.creator_id = first.creator_id
        AND peak_paid_day BETWEEN windows.first_day AND windows.last_day
    WHERE measure = 'paid_impressions'
    GROUP BY ALL
)
SELECT
    share > {{ notable_percent }} AS is_of_period,
    first.* REPLACE (coalesce(campaign_id, CASE WHEN len(post.campaign_ids) = 1 THEN post.campaign_ids[1] END) AS campaign_id),
    newest_day - post.peak_paid_day AS peak_age, post.peak_paid_impressions AS peak_value
FROM first
CROSS JOIN newest
LEFT JOIN peaks
    ON peaks.time_window = first.time_window AND peaks.instance_id IS NOT DISTINCT FROM first.instance_id AND peaks.kind = first.kind
