-- One row per campaign and day, as the API totals them. It does not state the instance: it is known, with the name, if only
-- one instance has the campaign id.
with campaigns as (
    select campaign_id, min(instance_id) as instance_id, min(campaign_name) as campaign_name
    from {{ source('later', 'campaigns') }}
    group by campaign_id
    having count(*) = 1
)
select
    coalesce('later.' || campaigns.instance_id, 'later') as source_relation,
    daily.date as date_day,
    'later' as platform,
    campaigns.instance_id as account_id,
    cast(null as varchar) as account_name,
    cast(daily.campaign_id as varchar) as campaign_id,
    campaigns.campaign_name,
    daily.paid_clicks as clicks,
    daily.paid_impressions as impressions,
    daily.paid_ad_spend as spend,
    daily.tracking_links_conversions as conversions,
    daily.tracking_links_conversion_value as conversions_value
from {{ source('later', 'campaign_performance_daily') }} as daily
left join campaigns using (campaign_id)
