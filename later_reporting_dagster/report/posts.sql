-- Young posts that were never paid for, and are organically above three quarters of their peers. Stories expire after a day, and
-- posts in groups cannot be paid for.
{%- set best = "organic_impressions_percentile + organic_engagement_rate_percentile DESC" %}
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
QUALIFY row_number() OVER (PARTITION BY instance_id ORDER BY {{ best }}, post_id) <= 25
