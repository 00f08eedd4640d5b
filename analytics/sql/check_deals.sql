-- Which deals have these ids?  In the order of each market; quantities as units, see units_of.
CREATE OR REPLACE TEMP MACRO check_deals(first_id, last_id) AS TABLE
SELECT
    market_no,
    called(market, market_no) AS market,
    deal_id,
    epoch_us(time) AS time_us,
    units_of(price) AS price,
    units_of(amount) AS amount,
    units_of(deal) AS deal
FROM deals
WHERE deal_id BETWEEN first_id AND last_id
ORDER BY market_no, deal_id, time_us;
