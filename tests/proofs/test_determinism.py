"""One seed, one run: whatever the threads, the batches' split, what is done in between, and how often it is resumed."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import scratchvae as sv
from scratchvae.engine import ENGINES
from tests.cases import build
from tests.proofs.reference_curves import RELATIVE, curve, names, stored

ROOT = Path(__file__).resolve().parents[2]

THREADS = """
import hashlib, sys
import numpy as np
import scratchvae as sv
from scratchvae.engine import set_threads
from scratchvae.report.summary import summarise
from threadpoolctl import threadpool_limits

x = np.random.default_rng(0).integers(0, 256, (400, 784), dtype=np.uint8)
for objective in (sv.ELBO(), sv.IWAE(4)):
    seen = set()
    for threads in (1, 2, 4):
        set_threads(threads)
        with threadpool_limits(threads):
            vae = sv.VAE(784, 10, (400, 40), "bernoulli", "tanh", engine=sys.argv[1])
            history = sv.fit(vae, x, epochs=2, batch_size=130, objective=objective, validation=x[:90], progress=False)
            summary = summarise(vae, x, "training", "dynamic", num_samples=5)
        terms = repr([{**entry, "seconds": 0} for entry in history.epochs] + [summary]).encode()
        seen.add(hashlib.sha256(vae.parameters.flat.tobytes() + terms).hexdigest())
    assert len(seen) == 1, f"{objective}: {len(seen)} results of 3 numbers of threads"
"""


@pytest.mark.parametrize("engine", ["compiled", pytest.param("reference", marks=pytest.mark.slow)])
def test_one_two_and_four_threads_train_to_the_same_bits(engine):
    environment = os.environ | {name: "4" for name in ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run([sys.executable, "-c", THREADS, engine], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_examples_terms_are_the_same_bits_in_any_batch(dtype):
    vae, x, eps = build(37, 5, (19, 11), dtype=dtype, engine="compiled", rows=131, samples=3)
    whole = vae.elbo(x, eps)
    for size in (1, 2, 7, 64, 130):
        parts = [vae.elbo(x[low : low + size], eps[low : low + size]) for low in range(0, len(x), size)]
        for term, pieces in zip(whole, zip(*parts, strict=True), strict=True):
            np.testing.assert_array_equal(np.concatenate(pieces), term)


def test_an_examples_gradient_in_z_and_in_the_noise_is_the_same_bits_in_any_batch():
    vae, x, eps = build(37, 5, (19, 11), engine="compiled", rows=67, samples=1)

    def upstream_of_the_encoder(low, high):
        _, cache = vae.forward(x[low:high], eps[low:high])
        dout, _ = vae.likelihood.backward(vae.ops, np.ones((high - low, 1)), cache.likelihood)
        return vae.ops.network_backward(dout[:, 0], cache.decoder, vae.networks["decoder"])[0]

    whole = upstream_of_the_encoder(0, len(x))
    for low, high in ((0, 1), (1, 9), (9, 67)):
        np.testing.assert_array_equal(upstream_of_the_encoder(low, high), whole[low:high])


@pytest.mark.parametrize("stops", [stops for n in (1, 2, 3) for stops in itertools.combinations((1, 2, 3), n)])
def test_any_number_of_resumes_gives_the_bits_of_the_run_that_was_never_stopped(stops, tmp_path):
    def run(epochs, resume):
        vae, x, _ = build(6, rows=23, dtype="float32")
        history = sv.fit(
            vae, x, epochs=epochs, batch_size=5, validation=x[:9], resume=resume, progress=False,
            checkpoint=tmp_path / "run.safetensors",
        )  # fmt: skip
        return vae.parameters.flat.copy(), [{**entry, "seconds": 0} for entry in history.epochs]

    weights, history = run(4, resume=False)
    for number, epochs in enumerate((*stops, 4)):
        again = run(epochs, resume=number > 0)
    np.testing.assert_array_equal(again[0], weights)
    assert again[1] == history


@pytest.mark.parametrize("name", names())
def test_curves_are_those_that_are_kept(name):
    np.testing.assert_allclose(curve(name), stored()[name], rtol=RELATIVE[name.split()[1]])


def test_the_curves_of_both_engines_are_one_but_for_rounding():
    for name in names():
        _, dtype, objective = name.split()
        other = curve(f"{ENGINES[0]} {dtype} {objective}")
        np.testing.assert_allclose(curve(name), other, rtol=RELATIVE[dtype] / 10)
    assert curve("reference float64 elbo") != curve("compiled float64 elbo"), "two engines, not one twice"
