-- What has the exchange earned, by date and asset?  Fees taken, less what referrers got of them.
CREATE OR REPLACE MACRO fee_revenue() AS TABLE
SELECT date, asset, -sum(change) AS fees
FROM balances
WHERE fee_rate IS NOT NULL OR business = 'ref'
GROUP BY date, asset;
