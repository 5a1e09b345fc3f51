-- What all tables are computed with. A macro is null where one of its arguments is null, unless it says otherwise.

-- Twelve significant digits: what floating point leaves undecided differs between machines and numbers of threads.
CREATE OR REPLACE MACRO significant(x) AS
    CASE WHEN x = 0 OR NOT isfinite(x) THEN x ELSE round(x, CAST(11 - floor(log10(abs(x))) AS INTEGER)) END;

-- Money is exact to the millionth, so that its sums do not depend on the order of rows. `name` is for the error.
CREATE OR REPLACE MACRO money(x, name) AS
    CASE
        WHEN abs(x) >= 1e12 THEN error('a value of ' || name || ' does not fit 12 digits before the point: ' || x)
        ELSE CAST(x AS DECIMAL(18, 6))
    END;

CREATE TYPE IF NOT EXISTS counting AS ENUM ('both', 'campaign', 'post');

-- The sum of counts as the int64 that is stored. `name` is the column, for the error.
CREATE OR REPLACE MACRO whole(total, name) AS
    CASE
        WHEN total NOT BETWEEN -9223372036854775808 AND 9223372036854775807
            THEN error('the sum of ' || name || ' does not fit int64: ' || total)
        ELSE CAST(total AS BIGINT)
    END;

-- Null unless the divisor is above 0.
CREATE OR REPLACE MACRO quotient(dividend, divisor) AS
    CASE WHEN divisor > 0 THEN significant(CAST(dividend AS DOUBLE) / CAST(divisor AS DOUBLE)) END;

-- Engagements per 100 impressions or views.
CREATE OR REPLACE MACRO rate(engagements, impressions) AS quotient(100.0 * engagements, impressions);

-- How much of the whole is paid, in percent. The whole is not known where one channel is null.
CREATE OR REPLACE MACRO share(paid, organic) AS quotient(100.0 * paid, CAST(paid AS HUGEINT) + organic);

-- By what factor the paid rate is the organic rate.
CREATE OR REPLACE MACRO lift(paid_engagements, paid_impressions, organic_engagements, organic_impressions) AS
    CASE
        WHEN paid_impressions > 0 AND organic_impressions > 0
            THEN quotient(
                CAST(paid_engagements AS DOUBLE) / paid_impressions,
                CAST(organic_engagements AS DOUBLE) / organic_impressions
            )
    END;

-- Spend. cpe × engagements and cpm × impressions / 1000 are the same cost, and each unit cost is rounded to two
-- decimals, so each bounds the cost; it lies in both intervals. A unit cost of nothing bounds nothing.
CREATE OR REPLACE MACRO cost_at_least(unit_cost, units) AS
    CASE WHEN units > 0 AND unit_cost IS NOT NULL THEN greatest(unit_cost - 0.005, 0) * units END;
CREATE OR REPLACE MACRO cost_at_most(unit_cost, units) AS
    CASE WHEN units > 0 THEN (unit_cost + 0.005) * units END;
-- `greatest` and `least` ignore nulls: one interval alone stands.
CREATE OR REPLACE MACRO spend_at_least(cpe, engagements, cpm, impressions) AS
    greatest(cost_at_least(cpe, engagements), cost_at_least(cpm, impressions / 1000));
CREATE OR REPLACE MACRO spend_at_most(cpe, engagements, cpm, impressions) AS
    least(cost_at_most(cpe, engagements), cost_at_most(cpm, impressions / 1000));

-- Intervals. The 97.5 % quantile of Student's t, by its expansion around the normal quantile (Abramowitz and Stegun
-- 26.7.5): within 0.04 % from 4 degrees of freedom on, and fewer are never asked for.
CREATE OR REPLACE MACRO t_quantile(degrees) AS
    1.959963985 + 2.372271230 / degrees + 2.822498616 / degrees ** 2 + 2.555849680 / degrees ** 3
    + 1.589534053 / degrees ** 4;

-- What is left of a whole without a share of it; null where nothing is.
CREATE OR REPLACE MACRO left_of(share) AS CASE WHEN share < 1 THEN 1 - share END;

-- Squares as decimals, whose sums do not depend on the order of rows.
CREATE OR REPLACE MACRO exact_square(x) AS CAST(x * x AS DECIMAL(38, 24));

-- Half the width of the interval of a log: the delete-one jackknife over clusters. Null where leaving one out leaves
-- nothing (then it has not moved), where fewer than 5 clusters would carry as much, or where all are alike.
CREATE OR REPLACE MACRO reach(squares, moved, clusters, effective, degrees) AS
    CASE
        WHEN moved = clusters AND effective >= 5 AND squares * (clusters - 1) / clusters > 1e-18
            THEN t_quantile(degrees) * sqrt(CAST(squares AS DOUBLE) * (clusters - 1) / clusters)
    END;

CREATE OR REPLACE MACRO verdict(low, high) AS
    CASE WHEN low > 1 THEN 'paid_higher' WHEN high < 1 THEN 'organic_higher' WHEN low <= high THEN 'undecided' END;
