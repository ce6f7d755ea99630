"""Peak memory of one pair's traces, and what the proof adds to it. One process a pair, because a peak never falls.

python -m benchmarks.memory "unrolled train_step 32"
"""

import gc
import json
import resource
import subprocess
import sys

from harness.gate import settle_platform

from . import machine


def peak() -> float:
    """The largest resident size of this process so far, in MiB."""
    # What getrusage says starts with the peak of the parent, on Linux, and would hide ours.
    status = machine.field("/proc/self/status", "VmHWM").partition(" ")[0]
    return (int(status) if status else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def measure(name: str) -> dict[str, float]:
    """Peaks in MiB: before the programs were made, after both traces, after the proof."""
    from harness import prove

    from . import cases

    case = cases.find(name)
    gc.collect()
    before = peak()
    a, b = case.make()
    a.trace()
    b.trace()
    traced = peak()
    prove(a, b)
    return {"before": before, "traced": traced, "proved": peak()}


def in_a_process(name: str) -> dict[str, float]:
    """The same in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.memory", name]
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    settle_platform()
    print(json.dumps(measure(sys.argv[1])))
