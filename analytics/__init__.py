"""The lake of Parquet files and the questions one asks it, without Ray.

`analytics.connect("data/lake")` is a DuckDB connection over its live files.
"""

from analytics.warehouse import connect

__all__ = ["connect"]
