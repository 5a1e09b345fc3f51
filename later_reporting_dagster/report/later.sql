-- The figures of each window and scope beside those of Later's own page, and why they differ. Only of the same days.
{%- set why = {
    "organic_impressions": "Requested at another time: networks restate results",
    "paid_impressions": "Requested at another time: networks restate results",
    "organic_engagements": "Requested at another time: networks restate results",
    "paid_engagements": "Requested at another time: networks restate results",
    "posts": "Requested at another time: posts appear late, and some are withdrawn",
    "paid_posts": "Requested at another time: posts appear late, and some are withdrawn",
    "ad_spend": "Here from unit costs of posts, which are rounded to a cent",
    "organic_engagement_rate": "Later counts engagements of posts that report no impressions",
    "paid_engagement_rate": "Here only posts that report both",
    "paid_cpm": "Here only impressions of posts with an ad spend",
    "ad_spend_per_engagement": "Here only posts that have both",
    "content_cost": "Here of posts published in the period; Later: the whole cost of every post with results in it",
    "content_cost_per_engagement": "Here of posts published in the period, at least " ~ comparable_age ~ " days old; Later: the whole cost of every post with results in it",
} %}
WITH compared AS (
    {%- for figure, reason in why.items() %}
    SELECT
        {{ loop.index }} AS place, '{{ figure }}' AS figure, here.time_window, here.instance_id, here.campaign_id,
        CAST(here.{{ figure }} AS DOUBLE) AS here, CAST(later.{{ figure }} AS DOUBLE) AS later, '{{ reason }}' AS reason
    FROM report_results AS here
    JOIN later_totals AS later
        ON NOT is_previous AND later.withheld IS NULL AND later.time_window = here.time_window
        AND later.instance_id IS NOT DISTINCT FROM here.instance_id AND later.campaign_id IS NOT DISTINCT FROM here.campaign_id
    {{- " UNION ALL" if not loop.last }}
    {%- endfor %}
)
SELECT
    place, figure, time_window, instance_id, campaign_id, here, later,
    -- Later states two decimals.
    coalesce(abs(here - later) <= 0.005 + 1e-9, false) AS is_equal,
    CASE WHEN NOT is_equal THEN reason END AS why
FROM compared
WHERE later IS NOT NULL
