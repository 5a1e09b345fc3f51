-- Campaigns over all windows. A post in several campaigns counts in each of them.
{%- import "windows.sql" as windows with context %}
WITH {{ windows.comparison("campaign") }}
SELECT windows.*, campaign_name
FROM windows LEFT JOIN campaigns USING (instance_id, campaign_id)
