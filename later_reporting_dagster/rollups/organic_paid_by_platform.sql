-- Platforms and content types over all windows. A post counts once, whatever the number of its campaigns.
{%- import "windows_by.sql" as windows with context %}
WITH {{ windows.windows_by(grain, counts_for="post") }}
FROM changes
