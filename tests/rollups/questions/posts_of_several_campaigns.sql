-- Posts that are in several campaigns, which campaign tables count in each.
SELECT instance_id, post_id, campaign_ids FROM posts WHERE len(campaign_ids) > 1 ORDER BY ALL
