"""A writer for a test to kill: it flushes, compacts and sweeps without end, and tells versions."""

from __future__ import annotations

import sys
import time

import pyarrow as pa

from analytics.lake import Lake
from tests.analytics.lake_rows import deals


def write_on(lake: Lake) -> None:
    """Put deal N as entry N, one a flush, behind those that are live."""
    known = deals(1, 2000, seconds=60)
    while True:
        base = lake.manifest()
        seq = base.watermarks.get("market-3", 0) + 1
        row = known[seq - 1 : seq].set_column(12, known.schema.field("seq"), pa.array([seq]))
        added = lake.write("deals", 3, seq, seq, row)
        live = lake.commit(base, add=added, watermarks={"market-3": seq})
        of_date = [entry for entry in live.files if entry.date == added[0].date]
        if len(of_date) >= 5:
            rows = pa.concat_tables([lake.read(entry) for entry in of_date])
            seqs = of_date[0].first_seq, of_date[-1].last_seq
            whole = lake.write("deals", 3, *seqs, rows, compacted=live.version)
            live = lake.commit(live, add=whole, remove=of_date)
            lake.sweep(0, time.time() + 60)
        print(live.version, flush=True)


if __name__ == "__main__":
    write_on(Lake(sys.argv[1]))
