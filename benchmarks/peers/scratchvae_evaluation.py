"""L_K by `sv.log_evidence`, a slice of the images at a time."""

import argparse
import time

import numpy as np

import scratchvae as sv
from benchmarks.peers.protocol import serve
from benchmarks.peers.scratchvae_training import model_with
from benchmarks.workloads import Workload
from scratchvae.engine import set_threads


class ScratchvaeEvaluation:
    def __init__(self, threads: int) -> None:
        set_threads(threads)

    def prepare(self, workload: dict, parameters: str, data: str) -> dict:
        self.vae = model_with(Workload.from_json(workload), dict(np.load(parameters)))
        self.data = np.load(data)
        self.seed = 0
        return {"version": sv.__version__, "generator": "Philox4x32-10, Box-Muller"}

    def prove(self, noise: str, out: str) -> dict:
        """The bound of the first images with the noise given (B, K, Z), by the code that is timed, written to `out`."""
        vae, eps = self.vae, np.load(noise)
        x = vae.ops.gather_rows(self.data, np.arange(len(eps)), vae.dtype)
        log_weights = vae.log_weights(x, vae.encoder_head(x), eps.astype(vae.dtype))
        np.save(out, vae.ops.importance_bound_forward(log_weights)[0])
        return {}

    def estimate(self, start: int, stop: int, samples: int) -> dict:
        """Row numbers address the noise and begin at 0 in every slice, so every slice has its own seed."""
        began = time.perf_counter()
        self.seed += 1
        found = sv.log_evidence(self.vae, self.data[start:stop], num_samples=samples, seed=self.seed)
        value, error = found.log_evidence.tolist(), found.standard_error.tolist()
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "log_evidence": value, "standard_error": error}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    serve(ScratchvaeEvaluation(parser.parse_args().threads))
