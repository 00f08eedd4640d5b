-- Which minutes are not as their deals make them?  first_day, last_day: counted from the epoch.
--
-- Bars of deals that are older than what is kept are not compared.
CREATE OR REPLACE TEMP MACRO check_bars(first_day, last_day) AS TABLE
WITH made AS (
    SELECT
        market_no,
        date_trunc('minute', time) AS minute,
        arg_min(price, deal_id) AS open,
        arg_max(price, deal_id) AS close,
        max(price) AS high,
        min(price) AS low,
        count(*) AS deals,
        min(deal_id) AS first_deal_id,
        max(deal_id) AS last_deal_id,
        total_whole(amount) AS volume_whole,
        total_fraction(amount) AS volume_fraction,
        total_whole(deal) AS amount_whole,
        total_fraction(deal) AS amount_fraction
    FROM deals
    WHERE date >= DATE '1970-01-01' + first_day::INTEGER
        AND date <= DATE '1970-01-01' + last_day::INTEGER
    GROUP BY market_no, minute
), made_bars AS (
    SELECT
        market_no,
        minute,
        (
            open, close, high, low, deals, first_deal_id, last_deal_id,
            carried_whole(volume_whole, volume_fraction), carried_fraction(volume_fraction),
            carried_whole(amount_whole, amount_fraction), carried_fraction(amount_fraction)
        ) AS bar
    FROM made
), shown_bars AS (
    SELECT
        market_no,
        minute,
        (
            open, close, high, low, deals, first_deal_id, last_deal_id,
            carried_whole(volume_whole, volume_fraction), carried_fraction(volume_fraction),
            carried_whole(amount_whole, amount_fraction), carried_fraction(amount_fraction)
        ) AS bar,
        last_deal_id AS newest
    FROM bars_1m
    WHERE date >= DATE '1970-01-01' + first_day::INTEGER
        AND date <= DATE '1970-01-01' + last_day::INTEGER
)
SELECT
    CASE
        WHEN s.bar IS NULL THEN 'a minute with deals has no bar'
        WHEN m.bar IS NULL THEN 'a minute without deals has a bar'
        ELSE 'a bar is not that of its deals'
    END AS what,
    called(k.market, market_no) || ' ' || strftime(minute, '%Y-%m-%dT%H:%MZ') AS example,
    epoch_us(minute) AS place
FROM made_bars AS m
FULL JOIN shown_bars AS s USING (market_no, minute)
JOIN check_markets AS k USING (market_no)
WHERE m.bar IS DISTINCT FROM s.bar AND (m.bar IS NOT NULL OR newest >= first_deal);
