-- How does one compute with quantities without leaving DECIMAL(38, 20)?
-- HUGEINT holds every quantity as a count of its last digit; text is the one exact way there,
-- because each multiplication that would scale it leaves the type.
CREATE OR REPLACE TEMP MACRO units_of(quantity) AS replace(quantity::VARCHAR, '.', '')::HUGEINT;

-- A total in two parts, see total.sql, with the fraction below 1: so two totals can be compared.
-- Only for totals of quantities that are not negative.
CREATE OR REPLACE TEMP MACRO carried_whole(whole, fraction) AS whole + trunc(fraction);

CREATE OR REPLACE TEMP MACRO carried_fraction(fraction) AS fraction - trunc(fraction);

-- quantity * rate in units, cut to so many digits: the product of each part fits, the whole not.
CREATE OR REPLACE TEMP MACRO product_of(whole, fraction, rate) AS (
    whole * rate // 10000 * 100000000000000000000::HUGEINT
    + whole * rate % 10000 * 10000000000000000::HUGEINT
    + fraction * rate // 10000
);

CREATE OR REPLACE TEMP MACRO cut_to(units, digits) AS (
    units - units % ('1' || repeat('0', 20 - digits))::HUGEINT
);

CREATE OR REPLACE TEMP MACRO share_of(quantity, rate, digits) AS cut_to(
    product_of(
        trunc(quantity)::HUGEINT,
        units_of(quantity - trunc(quantity)),
        (rate * 10000)::HUGEINT
    ),
    digits
);

-- How an example calls a market: by its current name, else by its number.
CREATE OR REPLACE TEMP MACRO called(market, market_no) AS coalesce(market, 'market ' || market_no);
