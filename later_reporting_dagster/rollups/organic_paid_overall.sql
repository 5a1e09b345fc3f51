-- Each instance, and all together (`instance_id` is null), over all windows. A post counts once.
{%- import "windows.sql" as windows with context %}
WITH groups_in_scopes AS (
    FROM overall_groups UNION ALL SELECT * REPLACE (NULL AS instance_id) FROM overall_groups
),
posts_in_scopes AS (
    FROM overall_posts UNION ALL SELECT * REPLACE (NULL AS instance_id) FROM overall_posts
),
{{ windows.comparison("groups_in_scopes", "posts_in_scopes") }}
FROM windows
