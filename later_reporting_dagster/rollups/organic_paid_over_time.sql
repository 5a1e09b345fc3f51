-- Organic and paid results recorded in each day, week or month, by {{ grain | join(", ") }}.
WITH groups AS (
    SELECT
        first_day, {{ grain | join(", ") }},
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
        -- A post without a creator counts as one.
        count(DISTINCT creator_id) FILTER (is_same_post)
            + count(*) FILTER (is_same_post AND creator_id IS NULL) AS same_post_creators,
        sum(same_post_paid) AS same_post_paid,
        sum(same_post_organic) AS same_post_organic,
        sum(ad_spend_low) AS ad_spend_low,
        sum(ad_spend_high) AS ad_spend_high,
        count(ad_spend_low) AS ad_spend_posts,
        middle(sum(twice_spend_with_engagements), 0) AS ad_spend_with_paid_engagements,
        CAST(sum(engagements_with_spend) AS BIGINT) AS paid_engagements_with_ad_spend
    FROM {{ facts }}
    GROUP BY ALL
),
days AS (
    SELECT first_day, last_day, instance_id, count(*) AS days
    FROM stored_files JOIN periods ON date BETWEEN first_day AND last_day
    WHERE table_name = 'post_metrics_daily'
    GROUP BY ALL
)
SELECT
    groups.*,
    {%- for rate in rates %}
    rate({{ rate.name }}_engagements, {{ rate.name }}_{{ rate.unit }}) AS {{ rate.column }},
    {%- endfor %}
    quotient(100.0 * paid_impressions, CAST(paid_impressions AS HUGEINT) + organic_impressions) AS paid_share_of_impressions,
    {%- for ratio in ratios %}
    quotient({{ ratio.paid }}, {{ ratio.organic }}) AS {{ ratio.column }},
    {%- endfor %}
    same_posts >= {{ minimum_same_posts }} AND same_post_creators >= {{ minimum_same_post_creators }} AS is_enough,
    CASE WHEN is_enough THEN quotient(same_post_paid, same_post_organic) END AS same_post_rate_ratio,
    CASE WHEN is_enough THEN paid_higher END AS same_posts_paid_higher,
    middle(ad_spend_low, ad_spend_high) AS ad_spend,
    quotient(ad_spend_with_paid_engagements, paid_engagements_with_ad_spend) AS ad_spend_per_engagement,
    days,
    last_day - first_day + 1 AS days_expected
FROM groups JOIN days USING (first_day, instance_id)
