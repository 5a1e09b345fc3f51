-- One row per campaign and day, as the API totals them. It does not state the instance: campaign_results has it, with the
-- name, if only one instance has the campaign id.
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
left join {{ source('later', 'campaign_results') }} as campaigns
    on campaigns.campaign_id = daily.campaign_id and campaigns.time_window = 'all'
