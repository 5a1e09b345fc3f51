-- Campaigns over all windows. A post in several campaigns counts in each of them.
{%- import "windows_with_changes.sql" as windows with context %}
WITH {{ windows.windows_with_changes(grain, counted_per="campaign") }}
FROM changes
