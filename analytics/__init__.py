"""The lake of Parquet files and the questions one asks it, without Ray."""
