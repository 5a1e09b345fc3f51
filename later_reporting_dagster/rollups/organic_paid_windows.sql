-- Organic and paid results over windows, by {{ grain | join(", ") }}, beside those of the period before.
WITH groups AS (
    SELECT
        time_window, is_previous, CASE WHEN grouping(posts.instance_id) = 0 THEN 'instance' ELSE 'all' END AS scope,
        coalesce(posts.instance_id, '') AS instance_id, {{ group }}
        count(*) AS posts,
        {%- for metric in metrics %}
        CAST(sum({{ metric.name }}) AS {{ metric.sum_type }}) AS {{ metric.name }},
        count({{ metric.name }}) AS {{ metric.name }}_posts,
        {%- endfor %}
        {%- for rate in rates %}
        CAST(sum({{ rate.name }}_engagements) AS BIGINT) AS {{ rate.name }}_engagements,
        CAST(sum({{ rate.name }}_{{ rate.unit }}) AS BIGINT) AS {{ rate.name }}_{{ rate.unit }},
        count({{ rate.name }}_engagements) AS {{ rate.name }}_posts,
        {%- endfor %}
        count(*) FILTER (is_same_post) AS same_posts,
        count(*) FILTER (is_paid_higher) AS paid_higher,
        -- A creator id is unique within an instance. A post without a creator counts as one.
        count(DISTINCT (posts.instance_id, creator_id)) FILTER (is_same_post AND creator_id IS NOT NULL)
            + count(*) FILTER (is_same_post AND creator_id IS NULL) AS same_post_creators,
        sum(same_post_paid) AS same_post_paid,
        sum(same_post_organic) AS same_post_organic,
        sum(ad_spend_low) AS ad_spend_low,
        sum(ad_spend_high) AS ad_spend_high,
        count(ad_spend_low) AS ad_spend_posts,
        middle(sum(twice_spend_with_engagements), 0) AS ad_spend_with_paid_engagements,
        CAST(sum(engagements_with_spend) AS BIGINT) AS paid_engagements_with_ad_spend
    FROM {{ facts }} AS posts
    GROUP BY GROUPING SETS (
        ({{ group }}time_window, is_previous, posts.instance_id){% if has_all %}, ({{ group }}time_window, is_previous){% endif %}
    )
),
rated AS (
    SELECT
        *,
        {%- for rate in rates %}
        rate({{ rate.name }}_engagements, {{ rate.name }}_{{ rate.unit }}) AS {{ rate.column }},
        {%- endfor %}
        quotient(100.0 * paid_impressions, CAST(paid_impressions AS HUGEINT) + organic_impressions) AS paid_share_of_impressions,
        {%- for ratio in ratios %}
        quotient({{ ratio.paid }}, {{ ratio.organic }}) AS {{ ratio.column }},
        {%- endfor %}
        middle(ad_spend_low, ad_spend_high) AS ad_spend,
        quotient(ad_spend_with_paid_engagements, paid_engagements_with_ad_spend) AS ad_spend_per_engagement,
        same_posts >= {{ minimum_same_posts }} AND same_post_creators >= {{ minimum_same_post_creators }} AS is_enough,
        CASE WHEN is_enough THEN quotient(same_post_paid, same_post_organic) END AS same_post_rate_ratio,
        CASE WHEN is_enough THEN paid_higher END AS same_posts_paid_higher
    FROM groups
)
SELECT
    rated.*, current_days.first_day, current_days.last_day, current_days.days, current_days.days_expected,
    previous_days.first_day AS previous_first_day, previous_days.last_day AS previous_last_day, previous_days.days AS previous_days,
    -- What a group earned before is comparable if both periods have all their days. Then, a group without a row had no posts.
    current_days.days = current_days.days_expected AND previous_days.days = previous_days.days_expected AS is_comparable,
    {%- for name in previous %}
    CASE WHEN is_comparable THEN {{ "coalesce(previous.posts, 0)" if name == "posts" else "previous." ~ name }} END AS previous_{{ name }},
    {%- endfor %}
    {%- for name in labels %}
    {{ label_relation }}.{{ name }},
    {%- endfor %}
FROM rated
JOIN period_days AS current_days USING (time_window, is_previous, scope, instance_id)
JOIN period_days AS previous_days
    ON previous_days.is_previous AND previous_days.time_window = rated.time_window AND previous_days.scope = rated.scope
    AND previous_days.instance_id = rated.instance_id
LEFT JOIN rated AS previous
    ON previous.is_previous AND previous.time_window = rated.time_window AND previous.scope = rated.scope
    AND previous.instance_id = rated.instance_id
    {%- for name in grain %}
    AND previous.{{ name }} IS NOT DISTINCT FROM rated.{{ name }}
    {%- endfor %}
{%- if label_relation == "creators" %}
LEFT JOIN creators ON creators.instance_id = rated.instance_id AND creators.creator_id = rated.creator_id
{%- elif label_relation == "campaigns" %}
LEFT JOIN campaigns ON campaigns.instance_id = rated.instance_id AND campaigns.campaign_id = rated.campaign_id
{%- endif %}
WHERE NOT rated.is_previous
