-- What happened in a market since 00:00 UTC of the day of now_s?
--
-- One row; without a deal today all prices are the last close, null before the first deal ever.
CREATE OR REPLACE MACRO status_today(of_market, now_s) AS TABLE
SELECT
    coalesce(open, last) AS open,
    last,
    coalesce(high, last) AS high,
    coalesce(low, last) AS low,
    volume, deal, volume_whole, volume_fraction, deal_whole, deal_fraction
FROM status(of_market, now_s % 86400, now_s);
