-- Costs of each instance, and of all together (`instance_id` is null), over all windows. A post counts once.
{%- import "measures.sql" as measures with context %}
{%- import "windows.sql" as windows with context %}
WITH overall_costs AS (
    SELECT time_window, instance_id, {{- measures.sums(cost_columns) }}
    FROM cost_groups
    WHERE counted_per IN ('either', 'post')
    GROUP BY GROUPING SETS ((time_window, instance_id), (time_window))
),
{{ windows.costs("overall_costs") }}
FROM windows
