-- Where does an account not go on from what it was?  first_user, last_user: both included.
--
-- A shard's rows follow each other by seq and step.  The first of an account starts from 0, unless
-- the shard's older rows are gone.
CREATE OR REPLACE TEMP MACRO check_chain(first_user, last_user) AS TABLE
WITH linked AS (
    SELECT
        *,
        lag(balance) OVER (
            PARTITION BY shard, "user", asset_id ORDER BY seq, step
        ) AS before
    FROM balances
    WHERE "user" BETWEEN first_user AND last_user
)
SELECT
    CASE
        WHEN before IS NULL THEN 'an account does not start from 0'
        ELSE 'a balance is not the one before and the change'
    END AS what,
    'user ' || "user" || ' ' || coalesce(asset, 'asset ' || asset_id) || ' shard ' || shard
        || ' entry ' || seq || ' step ' || step AS example,
    seq AS place
FROM linked JOIN check_shards USING (shard)
-- A difference that leaves the type is no balance at all.
WHERE CASE
    WHEN before IS NULL THEN whole AND balance <> change
    ELSE TRY(balance - change) IS DISTINCT FROM before
END
UNION ALL
SELECT 'a user is in more than one shard', 'user ' || "user", "user"
FROM linked
GROUP BY "user"
HAVING min(shard) <> max(shard);
