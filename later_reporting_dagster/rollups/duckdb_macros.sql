-- DuckDB macros for all rollups. If an argument is null, the result is null, unless the macro's comment says otherwise.

-- Round to 12 significant digits: further digits depend on the machine and on the number of threads.
CREATE OR REPLACE MACRO round_significant(x) AS
    CASE WHEN x = 0 OR NOT isfinite(x) THEN x ELSE round(x, CAST(11 - floor(log10(abs(x))) AS INTEGER)) END;

-- An amount as a decimal with 6 digits, so that its sums do not depend on the order of rows.
CREATE OR REPLACE MACRO money(x) AS CAST(x AS DECIMAL(18, 6));

-- Null unless the divisor is above 0.
CREATE OR REPLACE MACRO quotient(dividend, divisor) AS
    CASE WHEN divisor > 0 THEN round_significant(CAST(dividend AS DOUBLE) / CAST(divisor AS DOUBLE)) END;

-- Engagements per 100 impressions or views.
CREATE OR REPLACE MACRO rate(engagements, impressions) AS quotient(100.0 * engagements, impressions);

-- Paid share of both channels, in percent. If one channel is null, the total is unknown.
CREATE OR REPLACE MACRO share(paid, organic) AS quotient(100.0 * paid, CAST(paid AS HUGEINT) + organic);

-- Whether a post has both rates.
CREATE OR REPLACE MACRO has_both_rates(impressions, other_impressions) AS impressions > 0 AND other_impressions > 0;

-- Whether a post has both rates, and the first one is higher, without rounding.
CREATE OR REPLACE MACRO is_higher_rate(engagements, impressions, other_engagements, other_impressions) AS
    has_both_rates(impressions, other_impressions)
    AND CAST(engagements AS HUGEINT) * other_impressions > CAST(other_engagements AS HUGEINT) * impressions;

-- What a channel of a post adds to the same-post rate ratio, which is the Mantel-Haenszel rate ratio: its engagements,
-- multiplied by the other channel's share of the post's impressions. Null unless the post has both rates. In units of 1e-18,
-- which cancel out, so that sums do not depend on the order of rows. (Decimals would also work, but DuckDB casts integers to
-- floats ten times as fast.)
CREATE OR REPLACE MACRO same_post_term(engagements, impressions, other_impressions) AS
    CASE
        WHEN has_both_rates(impressions, other_impressions)
            THEN CAST(
                CAST(engagements AS DOUBLE) * other_impressions * 1e18 / (CAST(impressions AS DOUBLE) + other_impressions)
                AS HUGEINT
            )
    END;

-- Bounds of the spend. CPE × engagements and CPM × impressions / 1000 are the same cost. Each unit cost is rounded to two
-- decimals, so each gives an interval, and the cost is in both intervals. If there are 0 units, the unit cost gives no
-- interval.
CREATE OR REPLACE MACRO cost_minimum(unit_cost, units) AS
    CASE WHEN units > 0 AND unit_cost IS NOT NULL THEN greatest(unit_cost - 0.005, 0) * units END;
CREATE OR REPLACE MACRO cost_maximum(unit_cost, units) AS
    CASE WHEN units > 0 THEN (unit_cost + 0.005) * units END;
-- `greatest` and `least` ignore nulls, so one interval is enough.
CREATE OR REPLACE MACRO spend_minimum(cpe, engagements, cpm, impressions) AS
    greatest(cost_minimum(cpe, engagements), cost_minimum(cpm, impressions / 1000));
CREATE OR REPLACE MACRO spend_maximum(cpe, engagements, cpm, impressions) AS
    least(cost_maximum(cpe, engagements), cost_maximum(cpm, impressions / 1000));
-- Whether the two intervals do not overlap. The tolerance is for rounding errors of floats.
CREATE OR REPLACE MACRO is_contradictory(lower, upper) AS lower > upper * (1 + 1e-12);
