-- One row per post, with its results to date.
select
    'later.' || instance_id as source_relation,
    platform,
    cast(post_id as varchar) as post_id,
    post_date at time zone 'UTC' as created_timestamp,
    cast(creator_id as varchar) as page_id,
    creator_handle_name as page_name,
    cast(null as varchar) as post_message,
    content_url as post_url,
    cast(null as bigint) as clicks,
    coalesce(organic_impressions, organic_views) as impressions,
    organic_likes as likes,
    organic_shares as shares,
    organic_comments as comments,
    organic_engagements as engagements,
    paid_impressions,
    paid_engagements
from {{ source('later', 'posts') }}
where is_published
