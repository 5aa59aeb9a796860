import sys
import time

import pytest

from picochat.core.machine import process_age_s


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when a process was started")
def test_the_age_of_the_process_grows_as_the_clock_does() -> None:
    first = process_age_s()
    time.sleep(0.05)
    second = process_age_s()
    assert first is not None and second is not None and first > 0.1 and 0.05 <= second - first < 5
