"""Peak memory does not grow with the rounds."""

import shutil

from harness import PRUNE

# Masks of a few megabytes a round, so that keeping them all would show.
_LARGE = ("model.hidden=[1500,1500]", "training.length=2it", "rewind.to=1it", "checkpoint.every=1h")
_MEASURE = """
import ctypes, pathlib, resource, os
# Freed tensors go back to the system, so that holes between others, which come and go by chance, do not count.
mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
if mallopt is not None:
    mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD
leave = os._exit
def told(code):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pathlib.Path("peak.txt").write_text(str(peak))
    leave(code)
os._exit = told
"""


def test_peak_of_20_rounds_is_that_of_3(zygote, tmp_path):
    peaks = {}
    for rounds in (3, 20):
        place = tmp_path / str(rounds)
        command = PRUNE.with_(*_LARGE, f"pruning.rounds={rounds}")
        outcome = zygote.run(place, command, code=_MEASURE, timeout=300.0)
        assert outcome.code == 0, outcome.output
        peaks[rounds] = int((place / "peak.txt").read_text())
        shutil.rmtree(place)
    assert peaks[20] < 1.05 * peaks[3], peaks
