-- Is every market and asset that rows speak of defined?
CREATE OR REPLACE TEMP MACRO check_definitions() AS TABLE
SELECT 'the manifest does not define it' AS what, 'market ' || market_no AS example,
    market_no AS place
FROM (
    SELECT DISTINCT part AS market_no FROM lake_files WHERE "table" <> 'balances'
    UNION
    SELECT DISTINCT market_no FROM balances WHERE market_no IS NOT NULL
)
ANTI JOIN markets USING (market_no)
UNION ALL
SELECT 'the manifest does not define it', 'asset ' || asset_id, asset_id
FROM (SELECT DISTINCT asset_id FROM balances)
ANTI JOIN assets USING (asset_id);
