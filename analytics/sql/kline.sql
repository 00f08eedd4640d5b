-- What did a market do, bucket by bucket?
--
-- of_market: number or name.  start_s, end_s: seconds of the epoch; buckets from the one that
-- holds start_s to the last that begins at or before end_s, each whole, whatever end_s cuts.
-- interval_s: 604800 is the week from Monday, 2592000 the calendar month, others as they are.
-- from_deals: compute from the deals even where rolled-up bars would do (the answer is the same).
-- A bucket without a deal has the previous close in all four prices and volume 0; before the first
-- deal ever there is no bucket.  volume (stock) and amount (money) are an error from 10^18 on;
-- their _whole and _fraction are exact without a limit, and cost nothing when not selected.
CREATE OR REPLACE MACRO kline(of_market, start_s, end_s, interval_s, from_deals := false) AS TABLE
WITH parts AS (
    SELECT
        bucket_of(epoch_us(minute) // 1000000, interval_s) AS bucket_s,
        open, close, high, low, volume, amount, first_deal_id, last_deal_id
    FROM bars
    WHERE market_no = market_number(of_market)
        AND NOT from_deals AND interval_s % 60 = 0
        AND date >= date_at(bucket_of(start_s, interval_s))
        AND date <= date_at(bucket_after(bucket_of(end_s, interval_s), interval_s))
        AND minute >= time_at(bucket_of(start_s, interval_s))
        AND minute < time_at(bucket_after(bucket_of(end_s, interval_s), interval_s))
    UNION ALL
    SELECT
        bucket_of(epoch_us(time) // 1000000, interval_s) AS bucket_s,
        price, price, price, price, amount, deal, deal_id, deal_id
    FROM deals
    WHERE market_no = market_number(of_market)
        AND (from_deals OR interval_s % 60 <> 0)
        AND date >= date_at(bucket_of(start_s, interval_s))
        AND date <= date_at(bucket_after(bucket_of(end_s, interval_s), interval_s))
        AND time >= time_at(bucket_of(start_s, interval_s))
        AND time < time_at(bucket_after(bucket_of(end_s, interval_s), interval_s))
), traded AS (
    SELECT
        bucket_s,
        arg_min(open, first_deal_id) AS open,
        arg_max(close, last_deal_id) AS close,
        max(high) AS high,
        min(low) AS low,
        total_whole(volume) AS volume_whole,
        total_fraction(volume) AS volume_fraction,
        total_whole(amount) AS amount_whole,
        total_fraction(amount) AS amount_fraction
    FROM parts
    GROUP BY bucket_s
), past AS (
    -- Whole minutes come from the bars; a bucket of seconds may begin inside a minute.
    SELECT close, last_deal_id
    FROM bars
    WHERE market_no = market_number(of_market)
        AND NOT from_deals
        AND date <= date_at(bucket_of(start_s, interval_s))
        AND minute < time_at(bucket_of(bucket_of(start_s, interval_s), 60))
    UNION ALL
    SELECT price, deal_id
    FROM deals
    WHERE market_no = market_number(of_market)
        AND date <= date_at(bucket_of(start_s, interval_s))
        AND time < time_at(bucket_of(start_s, interval_s))
        AND (
            from_deals
            OR date >= date_at(bucket_of(bucket_of(start_s, interval_s), 60))
            AND time >= time_at(bucket_of(bucket_of(start_s, interval_s), 60))
            AND bucket_of(start_s, interval_s) % 60 <> 0
        )
), before AS (
    SELECT arg_max(close, last_deal_id) AS close FROM past
), buckets AS (
    -- Without a past the first bucket is that of the first deal; without that there is none.
    SELECT
        unnest(buckets_between(
            CASE
                WHEN before.close IS NULL THEN (SELECT min(bucket_s) FROM traded)
                ELSE bucket_of(start_s, interval_s)
            END,
            bucket_after(bucket_of(end_s, interval_s), interval_s),
            interval_s
        )) AS bucket_s,
        close AS close_before
    FROM before
), filled AS (
    SELECT
        bucket_s,
        traded.*,
        coalesce(
            last_value(traded.close IGNORE NULLS) OVER (
                ORDER BY bucket_s ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            ),
            close_before
        ) AS carried
    FROM buckets LEFT JOIN traded USING (bucket_s)
)
SELECT
    bucket_s AS time,
    coalesce(open, carried) AS open,
    carried AS close,
    coalesce(high, carried) AS high,
    coalesce(low, carried) AS low,
    total_of(coalesce(volume_whole, 0), coalesce(volume_fraction, 0)) AS volume,
    total_of(coalesce(amount_whole, 0), coalesce(amount_fraction, 0)) AS amount,
    coalesce(volume_whole, 0) AS volume_whole,
    coalesce(volume_fraction, 0) AS volume_fraction,
    coalesce(amount_whole, 0) AS amount_whole,
    coalesce(amount_fraction, 0) AS amount_fraction
FROM filled
ORDER BY bucket_s;
