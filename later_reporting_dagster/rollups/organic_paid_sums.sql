{#- The sums of a group of posts. -#}
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
count(*) FILTER (paid_impressions > 0) AS paid_posts,
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
CAST(sum(engagements_with_spend) AS BIGINT) AS paid_engagements_with_ad_spend,
middle(sum(twice_spend_with_impressions), 0) AS ad_spend_with_paid_impressions,
CAST(sum(impressions_with_spend) AS BIGINT) AS paid_impressions_with_ad_spend
