{#- Rates of these sums. -#}
{%- for rate in rates %}
rate({{ rate.name }}_engagements, {{ rate.name }}_{{ rate.unit }}) AS {{ rate.column }},
{%- endfor %}
quotient(100.0 * paid_impressions, CAST(paid_impressions AS HUGEINT) + organic_impressions) AS paid_share_of_impressions,
{%- for ratio in ratios %}
quotient({{ ratio.paid }}, {{ ratio.organic }}) AS {{ ratio.column }},
{%- endfor %}
middle(ad_spend_low, ad_spend_high) AS ad_spend,
quotient(ad_spend_with_paid_engagements, paid_engagements_with_ad_spend) AS ad_spend_per_engagement,
quotient(1000 * ad_spend_with_paid_impressions, paid_impressions_with_ad_spend) AS paid_cpm,
same_posts >= {{ minimum_same_posts }} AND same_post_creators >= {{ minimum_same_post_creators }} AS is_enough,
CASE WHEN is_enough THEN quotient(same_post_paid, same_post_organic) END AS same_post_rate_ratio,
CASE WHEN is_enough THEN paid_higher END AS same_posts_paid_higher
