-- Costs of campaigns over all windows. A post in several campaigns counts in each of them.
{%- import "measures.sql" as measures with context %}
{%- import "windows.sql" as windows with context %}
WITH campaign_costs AS (
    SELECT time_window, instance_id, campaign_id, {{- measures.sums(cost_columns) }}
    FROM cost_groups
    WHERE counted_per IN ('either', 'campaign')
    GROUP BY ALL
),
{{ windows.costs("campaign_costs") }}
SELECT windows.*, campaign_name
FROM windows LEFT JOIN campaigns USING (instance_id, campaign_id)
