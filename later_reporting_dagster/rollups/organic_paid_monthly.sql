-- What each month earned, organic beside paid. A post counts once, whatever the number of its days.
{%- import "over_days.sql" as spans with context %}
{{ spans.over_days("month") }}
