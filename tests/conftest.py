"""How all tests run: dealt out to workers, and never judged by how long they take.

Separate because it concerns every folder.  It must not need pytest-xdist: a run without the plugin
goes on without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

SYSTEM = "tests/system/"

# An example may take long because the machine has something else to do.  What Hypothesis has
# chosen for this machine, as for one of CI, otherwise stays.
settings.register_profile(
    "untimed", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Deal out one test at a time, but all that start real Ray to one worker.

    So there is one cluster at a time, however many workers there are; it comes first, since it
    is what the others wait for in the end.  Another --dist than the plugin's own choice is obeyed.
    """
    from xdist.scheduler import LoadScopeScheduling

    class OneCluster(LoadScopeScheduling):
        # The mark of a group would say it too, but since pytest 9.2 the plugin's way of passing
        # it on, in the name of a test, is without effect.
        def _split_scope(self, nodeid: str) -> str:
            return SYSTEM if nodeid.startswith(SYSTEM) else nodeid

    return OneCluster(config, log) if config.getvalue("dist") == "load" else None
