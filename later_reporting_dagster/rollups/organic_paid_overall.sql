-- Each instance, and all together (`instance_id` is null), over all windows. A post counts once.
{%- import "windows.sql" as windows with context %}

WITH groups_in_scopes AS (
    SELECT
        * REPLACE (
            -- A creator id is unique only within an instance.
            CASE WHEN creator_id IS NOT NULL THEN struct_pack(instance_id := instance_id, creator_id := creator_id) END AS creator_id,
            CASE WHEN is_by_instance THEN instance_id END AS instance_id
        )
    FROM post_groups, (VALUES (true), (false)) AS scopes (is_by_instance)
),
{{ windows.comparison("post", "groups_in_scopes") }}
FROM windows
