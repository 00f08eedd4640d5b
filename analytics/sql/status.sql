-- What happened in a market during the last period_s seconds before now_s?
--
-- One row: last (of all times), and of the deals since now_s - period_s: open, close, high, low,
-- volume (stock) and deal (money), all null or 0 when there is none.  Deals after now_s count too,
-- for one who has an answer to an order finds its deals here.  Totals as in kline.
CREATE OR REPLACE MACRO status(of_market, period_s, now_s) AS TABLE
WITH parts AS (
    SELECT open, close, high, low, volume, amount, first_deal_id, last_deal_id
    FROM bars
    WHERE market_no = market_number(of_market)
        AND date >= date_at(now_s - period_s)
        AND minute >= time_at(bucket_after(bucket_of(now_s - period_s - 1, 60), 60))
    UNION ALL
    -- A period may begin inside a minute: its rest comes from the deals.
    SELECT price, price, price, price, amount, deal, deal_id, deal_id
    FROM deals
    WHERE market_no = market_number(of_market)
        AND date >= date_at(now_s - period_s)
        AND date <= date_at(bucket_after(bucket_of(now_s - period_s - 1, 60), 60))
        AND time >= time_at(now_s - period_s)
        AND time < time_at(bucket_after(bucket_of(now_s - period_s - 1, 60), 60))
), rolling AS (
    SELECT
        arg_min(open, first_deal_id) AS open,
        arg_max(close, last_deal_id) AS close,
        max(high) AS high,
        min(low) AS low,
        total_whole(volume) AS volume_whole,
        total_fraction(volume) AS volume_fraction,
        total_whole(amount) AS deal_whole,
        total_fraction(amount) AS deal_fraction
    FROM parts
), ever AS (
    SELECT arg_max(close, last_deal_id) AS last
    FROM bars
    WHERE market_no = market_number(of_market)
)
SELECT
    last, open, close, high, low,
    total_of(volume_whole, volume_fraction) AS volume,
    total_of(deal_whole, deal_fraction) AS deal,
    volume_whole, volume_fraction, deal_whole, deal_fraction
FROM rolling, ever;
