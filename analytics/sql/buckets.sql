-- What happened in the buckets of a kline that have a deal?  From the bars, or from the deals.
--
-- markets: a list of numbers.  start_s, until_s: seconds of the epoch, the last not included, both
-- where a bucket begins.  One row for a market and bucket; volume and amount are an error from
-- 10^18 on, their _whole and _fraction are exact without a limit, and cost nothing unless selected.
CREATE OR REPLACE MACRO bar_buckets(markets, start_s, until_s, interval_s) AS TABLE
SELECT
    market_no,
    bucket_of(epoch_us(minute) // 1000000, interval_s) AS bucket_s,
    arg_min(open, first_deal_id) AS open,
    arg_max(close, last_deal_id) AS close,
    max(high) AS high,
    min(low) AS low,
    sum(volume) AS volume,
    sum(amount) AS amount,
    total_whole(volume) AS volume_whole,
    total_fraction(volume) AS volume_fraction,
    total_whole(amount) AS amount_whole,
    total_fraction(amount) AS amount_fraction
FROM bars
WHERE list_contains(markets, market_no)
    AND minute >= time_at(start_s)
    AND minute < time_at(until_s)
GROUP BY market_no, bucket_s;

CREATE OR REPLACE MACRO deal_buckets(markets, start_s, until_s, interval_s) AS TABLE
SELECT
    market_no,
    bucket_of(epoch_us(time) // 1000000, interval_s) AS bucket_s,
    arg_min(price, deal_id) AS open,
    arg_max(price, deal_id) AS close,
    max(price) AS high,
    min(price) AS low,
    sum(amount) AS volume,
    sum(deal) AS amount,
    total_whole(amount) AS volume_whole,
    total_fraction(amount) AS volume_fraction,
    total_whole(deal) AS amount_whole,
    total_fraction(deal) AS amount_fraction
FROM deals
WHERE list_contains(markets, market_no)
    AND time >= time_at(start_s)
    AND time < time_at(until_s)
GROUP BY market_no, bucket_s;

-- What was the last price of each market before a moment?  No row for one without a deal by then.
-- The moment is the beginning of a minute; price_within looks into the minute a moment cuts.
CREATE OR REPLACE MACRO close_before(markets, at_s) AS TABLE
SELECT market_no, arg_max(close, last_deal_id) AS price
FROM bars
WHERE list_contains(markets, market_no) AND minute < time_at(at_s)
GROUP BY market_no;

CREATE OR REPLACE MACRO price_within(markets, at_s) AS TABLE
SELECT market_no, arg_max(price, deal_id) AS price
FROM deals
WHERE list_contains(markets, market_no)
    AND time >= time_at(bucket_of(at_s, 60))
    AND time < time_at(at_s)
GROUP BY market_no;

-- A quantity as people write it: without zeros at the end, and without a point there.
CREATE OR REPLACE MACRO plain(quantity) AS rtrim(rtrim(quantity::VARCHAR, '0'), '.');
