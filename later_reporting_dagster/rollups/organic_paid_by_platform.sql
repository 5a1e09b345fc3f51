-- Platforms over all windows. A post counts once, even if it is in several campaigns.
{%- import "windows.sql" as windows with context %}
WITH {{ windows.comparison("post") }}
FROM windows
