-- In which bucket of a kline does a second fall, and when does the next bucket begin?
-- Buckets are counted from the epoch in UTC, except 604800 (weeks, which begin on Monday; the
-- epoch was a Thursday, its first Monday is second 345600) and 2592000 (calendar months).
-- All in BIGINT, because a second of our time times a million leaves INTEGER.
CREATE OR REPLACE MACRO moment(at_s) AS make_timestamp(at_s::BIGINT * 1000000);

CREATE OR REPLACE MACRO bucket_of(at_s, interval_s) AS CASE interval_s
    WHEN 2592000 THEN epoch_us(date_trunc('month', moment(at_s))) // 1000000
    WHEN 604800 THEN at_s::BIGINT - ((at_s::BIGINT - 345600) % 604800 + 604800) % 604800
    ELSE at_s::BIGINT - at_s::BIGINT % interval_s
END;

CREATE OR REPLACE MACRO bucket_after(bucket_s, interval_s) AS CASE interval_s
    WHEN 2592000 THEN epoch_us(moment(bucket_s) + INTERVAL 1 MONTH) // 1000000
    ELSE bucket_s::BIGINT + interval_s
END;

-- Every bucket from one to another, the first included, the last not.
CREATE OR REPLACE MACRO buckets_between(first_s, until_s, interval_s) AS CASE interval_s
    WHEN 2592000
    THEN list_transform(
        range(moment(first_s), moment(until_s), INTERVAL 1 MONTH),
        lambda month: epoch_us(month) // 1000000
    )
    ELSE range(first_s::BIGINT, until_s::BIGINT, interval_s::BIGINT)
END;

CREATE OR REPLACE MACRO time_at(at_s) AS make_timestamptz(at_s::BIGINT * 1000000);

-- The UTC date of a second: with it a question opens only the files of its days.
CREATE OR REPLACE MACRO date_at(at_s) AS moment(at_s)::DATE;
