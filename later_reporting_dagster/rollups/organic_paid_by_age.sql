-- The typical curve of a post: quartiles of what posts of the last year had earned at each age.
SELECT
    platform, content_type, age, count(*) AS posts
    {%- for name in curve_measures %},
    count({{ name }}) AS {{ name }}_posts
    {%- for percent in quartiles %},
    quantile_disc({{ name }}, {{ percent / 100 }}) AS {{ name }}_p{{ percent }}
    {%- endfor %}
    {%- endfor %},
    any_value(last_day) AS last_day
FROM curves JOIN (SELECT DISTINCT group_number, platform, content_type, last_day FROM recent_posts) USING (group_number)
GROUP BY ALL
