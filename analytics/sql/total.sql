-- How much is it all together?  A sum of DECIMAL(38,20) fails from 10^18 on, so whole numbers and
-- fractions are summed apart: the first has room for 10^20 values, the second for 10^18 of them.
-- Whole and fraction have the sign of the value, and the fraction may pass 1: add them to read.
CREATE OR REPLACE MACRO total_whole(quantity) AS coalesce(sum(trunc(quantity)), 0);

CREATE OR REPLACE MACRO total_fraction(quantity) AS coalesce(sum(quantity - trunc(quantity)), 0);

-- One DECIMAL(38,20) again; an error, never a rounded number, when the total is 10^18 or more.
CREATE OR REPLACE MACRO total_of(whole, fraction) AS (
    whole::DECIMAL(38, 20) + fraction::DECIMAL(38, 20)
);
