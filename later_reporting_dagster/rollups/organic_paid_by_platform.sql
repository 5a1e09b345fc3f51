-- Platforms and content types over all windows. A post counts once, even if it is in several campaigns.
{%- import "windows_with_changes.sql" as windows with context %}
WITH {{ windows.windows_with_changes(grain, counted_per="post") }}
FROM changes
