-- One row per post, with its results to date. The API totals a post once for each of its campaigns, with the same numbers:
-- this is the row of the newest day, of the lowest campaign id, as in post_benchmarks.
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
    impressions,
    likes,
    shares,
    comments,
    engagements,
    paid_impressions,
    paid_engagements
from {{ source('later', 'posts_published') }}
qualify row_number() over (partition by instance_id, post_id order by date desc, campaign_id) = 1
