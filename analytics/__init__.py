"""The lake of Parquet files and the questions one asks it, without Ray.

    import analytics
    lake = analytics.connect("data/lake")
    lake.sql("FROM kline('BTC_USDT', 0, epoch(now()), 3600)").df()
"""

from analytics.warehouse import connect

__all__ = ["connect"]
