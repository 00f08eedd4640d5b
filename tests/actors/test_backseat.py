"""A thread that gives way, and hurries when somebody waits; each case in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# What a process has after each step: the policy of its thread, and its niceness.
SCRIPT = """
import json, os, resource, threading
from concurrent.futures import ThreadPoolExecutor
from excore_ray.actors.backseat import Backseat
os.geteuid = lambda: {uid}
resource.getrlimit = lambda what: ({limit}, {limit})
told = []
seat = Backseat(7)
stranger = ThreadPoolExecutor(1)
stranger.submit(threading.get_native_id).result()
threading.Thread(target=seat.join).start()  # and it ends
with ThreadPoolExecutor(1, initializer=seat.join) as early:
    early.submit(threading.get_native_id).result()
    late = None
    for step in (lambda: None, seat.give_way, seat.give_way, seat.hurry, seat.hurry, seat.give_way):
        step()
        late = late or ThreadPoolExecutor(1, initializer=seat.join)
        idle = {{
            pool.submit(os.sched_getscheduler, 0).result() == os.SCHED_IDLE
            for pool in (early, late)
        }}
        assert idle == {{os.sched_getscheduler(0) == os.SCHED_IDLE}}
        assert stranger.submit(os.sched_getscheduler, 0).result() == os.SCHED_OTHER
        told.append((*idle, os.nice(0)))
print(json.dumps(told))
"""


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root may for sure")
@pytest.mark.parametrize(
    ("uid", "limit", "idle", "niceness"),
    [
        (0, 0, [False, True, True, False, False, True], 0),
        (1000, 20, [False, True, True, False, False, True], 0),
        (1000, -1, [False, True, True, False, False, True], 0),  # no limit
        # There would be no way back: the priority alone is lowered.
        (1000, 0, [False] * 6, 7),
        (1000, 19, [False] * 6, 7),
    ],
)
def test_it_gives_way_where_it_may_return(
    uid: int, limit: int, idle: list[bool], niceness: int
) -> None:
    script = SCRIPT.format(uid=uid, limit=limit)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [[each, niceness] for each in idle]
