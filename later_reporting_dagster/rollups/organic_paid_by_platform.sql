-- Platforms over all windows. A post counts once, even if it is in several campaigns.
{%- import "windows.sql" as windows with context %}
WITH {{ windows.comparison("post_groups", "posts_in_windows", counted_per="post") }}
FROM windows
