-- Each instance, and all together (`instance_id` is null), over all windows. A post counts once.
{%- import "windows.sql" as windows with context %}

{#- The rows of a relation, and the same without their instance. A creator id is unique only within an instance. -#}
{%- macro with_and_without_instance(relation) -%}
SELECT
    * REPLACE (
        CASE WHEN creator_id IS NOT NULL THEN struct_pack(instance_id := instance_id, creator_id := creator_id) END AS creator_id,
        CASE WHEN is_by_instance THEN instance_id END AS instance_id
    )
FROM {{ relation }}, (VALUES (true), (false)) AS scopes (is_by_instance)
{%- endmacro %}
WITH groups_in_scopes AS ({{ with_and_without_instance("post_groups") }}),
posts_in_scopes AS ({{ with_and_without_instance("posts_in_windows") }}),
{{ windows.comparison("post", "groups_in_scopes", "posts_in_scopes") }}
FROM windows
