"""A training peer with an error planted in it: `python -m tests.benchmarks.faulty_peer FRAMEWORK FAULT`.

`loss`: it is multiplied by 1.001, which no plot of a training run would show. `rows`: every update takes the first rows
of the data, whichever it is given. `noise`: every update has the first noise of its call.
"""

import sys

import numpy as np

from benchmarks.equality import TRAINED
from benchmarks.peers.protocol import serve

FACTOR = 1.001


def faulty_torch(fault: str):
    import torch

    from benchmarks.peers.torch_model import Autoencoder
    from benchmarks.peers.torch_training import TorchTraining

    loss, update = Autoencoder.negative_elbo, TorchTraining.update
    if fault == "loss":
        Autoencoder.negative_elbo = lambda *arguments: FACTOR * loss(*arguments)
    else:
        TorchTraining.update = counted(lambda peer, data, rows, eps: update(peer, data, torch.arange(len(rows)), eps))
    return TorchTraining("eager", 1)


def faulty_jax(fault: str, mode: str = "jit"):
    import jax.numpy as jnp

    from benchmarks.peers import jax_model, jax_training

    loss, update, scan = jax_model.LOSSES["ELBO"], jax_training.update, jax_training.scan
    if fault == "loss":
        jax_model.LOSSES["ELBO"] = lambda *arguments, **named: FACTOR * loss(*arguments, **named)
    elif fault == "rows":
        jax_training.update = counted(
            lambda w, state, data, rows, eps: update(w, state, data, jnp.arange(len(rows)), eps)
        )
    else:
        jax_training.scan = counted(
            lambda *arguments: scan(*arguments[:-1], jnp.broadcast_to(arguments[-1][:1], arguments[-1].shape))
        )
    return jax_training.JaxTraining(mode)


def faulty_jax_scan(fault: str):
    return faulty_jax(fault, "scan")


def faulty_scratchvae(fault: str):
    from benchmarks.peers import scratchvae_training
    from scratchvae.training import Trainer

    record, steps = scratchvae_training.train_on_problem, Trainer.steps

    def wrong_gradients(*arguments):
        right = record(*arguments)
        kept = {name for name in right if name == "losses" or name.startswith(TRAINED)}
        return {name: value if name in kept else FACTOR * value for name, value in right.items()}

    if fault == "loss":
        scratchvae_training.train_on_problem = wrong_gradients
    else:
        Trainer.steps = counted(lambda trainer, batches: steps(trainer, (np.arange(len(rows)) for rows in batches)))
    return scratchvae_training.ScratchvaeTraining(1)


def counted(step):
    """The same, and says how often it was called, or made part of a program."""

    def call(*arguments):
        call.times += 1
        return step(*arguments)

    call.times = 0
    COUNTED.append(call)
    return call


COUNTED: list = []
FAULTY = {"torch": faulty_torch, "jax": faulty_jax, "jax scan": faulty_jax_scan, "scratchvae": faulty_scratchvae}

if __name__ == "__main__":
    peer = FAULTY[sys.argv[1]](sys.argv[2])
    peer.times = lambda: {"times": sum(call.times for call in COUNTED)}
    serve(peer)
