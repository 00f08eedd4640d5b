-- What did each market do, minute by minute?  The parts of a minute, one of each flush, as one row.
--
-- volume and amount are an error from 10^18 on; their _whole and _fraction are exact without limit.
CREATE OR REPLACE VIEW bars_1m AS
SELECT
    market_no, market, date, minute, open, close, high, low,
    total_of(volume_whole, volume_fraction) AS volume,
    total_of(amount_whole, amount_fraction) AS amount,
    deals, first_deal_id, last_deal_id,
    volume_whole, volume_fraction, amount_whole, amount_fraction
FROM (
    SELECT
        market_no, market, date, minute,
        arg_min(open, first_deal_id) AS open,
        arg_max(close, last_deal_id) AS close,
        max(high) AS high,
        min(low) AS low,
        sum(deals)::BIGINT AS deals,
        min(first_deal_id) AS first_deal_id,
        max(last_deal_id) AS last_deal_id,
        total_whole(volume) AS volume_whole,
        total_fraction(volume) AS volume_fraction,
        total_whole(amount) AS amount_whole,
        total_fraction(amount) AS amount_fraction
    FROM bars
    GROUP BY market_no, market, date, minute
);
