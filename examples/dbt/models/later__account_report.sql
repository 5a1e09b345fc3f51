-- One row per instance and day: its campaigns together. Those whose instance is unknown are in one row without an account.
select
    source_relation,
    date_day,
    platform,
    account_id,
    account_name,
    sum(clicks) as clicks,
    sum(impressions) as impressions,
    sum(spend) as spend,
    sum(conversions) as conversions,
    sum(conversions_value) as conversions_value
from {{ ref('later__campaign_report') }}
group by all
