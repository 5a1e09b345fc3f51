-- (Post, day) pairs, over both date bases, for which campaigns report different numbers.
{%- for raw_table in raw_tables %}
SELECT date, instance_id, post_id
FROM {{ raw_table }}_of_several_campaigns
GROUP BY ALL
HAVING count(*) > 1 AND (
    {%- for metric in metrics %}
    min({{ metric.sum }}) <> max({{ metric.sum }}) OR count({{ metric.sum }}) NOT IN (0, count(*)){{ " OR" if not loop.last }}
    {%- endfor %}
)
{{- " UNION ALL" if not loop.last }}
{%- endfor %}
