"""What every peer process shares: how it is spoken to, and where its minibatches come from.

One JSON object a line on the pipes, a command and its answer. A peer is an object whose public methods are the
commands: {"command": "run", "steps": 100} calls `peer.run(steps=100)` and sends back the dictionary it returns, or
{"error": text}. Standard output is kept for answers alone; whatever a framework prints goes to standard error.
"""

import json
import os
import resource
import sys
import traceback
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def serve(peer: object) -> None:
    """Answers commands until the harness closes the pipe."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        command = request.pop("command")
        try:
            answer = peak_memory() if command == "peak_memory" else getattr(peer, command)(**request)
        except Exception as error:  # the harness decides what a failure means; the process goes on listening
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def peak_memory() -> dict:
    """The largest resident set of this process so far, in megabytes: Linux's VmHWM, elsewhere ru_maxrss.

    On Linux ru_maxrss would count what the parent had resident when it forked.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return {"megabytes": int(line.split()[1]) / 1024}
    except OSError:
        pass
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}


class ShuffledRows:
    """Minibatches of row numbers without replacement: a fresh permutation each epoch, the short last batch left out.

    The same for every framework and inside the timed loop; NumPy's permutation costs about 10 ns a row.
    """

    def __init__(self, num_rows: int, batch_size: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.num_rows, self.batch_size = num_rows, batch_size
        self.pending = np.empty((0, batch_size), np.int32)

    def take(self, steps: int) -> NDArray[np.int32]:
        """The next `steps` minibatches, (steps, B)."""
        while len(self.pending) < steps:
            order = self.rng.permutation(self.num_rows).astype(np.int32)
            whole = len(order) // self.batch_size * self.batch_size
            self.pending = np.concatenate([self.pending, order[:whole].reshape(-1, self.batch_size)])
        taken, self.pending = self.pending[:steps], self.pending[steps:]
        return taken
