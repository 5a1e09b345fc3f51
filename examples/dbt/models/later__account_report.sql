-- One row per instance and day. Impressions and spend are of its posts, each once, where those of campaigns have a post of
-- several in each. Conversions are of the links of its campaigns; those of campaigns whose instance is unknown are in one row
-- without an account. Clicks are known of campaigns only.
with posts as (
    select instance_id, date as date_day, sum(paid_impressions) as impressions, sum(ad_spend) as spend
    from {{ source('later', 'organic_paid_daily') }}
    group by all
),
links as (
    select
        account_id as instance_id,
        date_day,
        sum(conversions) as conversions,
        sum(conversions_value) as conversions_value
    from {{ ref('later__campaign_report') }}
    group by all
)
select
    coalesce('later.' || instance_id, 'later') as source_relation,
    date_day,
    'later' as platform,
    instance_id as account_id,
    cast(null as varchar) as account_name,
    cast(null as bigint) as clicks,
    impressions,
    spend,
    conversions,
    conversions_value
from posts
full join links using (instance_id, date_day)
