-- Campaigns over all windows. A post of several campaigns counts in each of them.
{%- import "windows_by.sql" as windows with context %}
WITH {{ windows.windows_by(grain, counts_for="campaign") }}
FROM changes
