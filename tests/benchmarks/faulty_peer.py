"""A training peer with an error planted in it: `python -m tests.benchmarks.faulty_peer FRAMEWORK`.

The loss is multiplied by 1.001, which no plot of a training run would show.
"""

import sys

from benchmarks.equality import TRAINED
from benchmarks.peers.protocol import serve

FACTOR = 1.001


def faulty_torch():
    from benchmarks.peers.torch_model import Autoencoder
    from benchmarks.peers.torch_training import TorchTraining

    right = Autoencoder.negative_elbo
    Autoencoder.negative_elbo = lambda *arguments: FACTOR * right(*arguments)
    return TorchTraining("eager", 1)


def faulty_jax():
    from benchmarks.peers.jax_model import LOSSES
    from benchmarks.peers.jax_training import JaxTraining

    right = LOSSES["ELBO"]
    LOSSES["ELBO"] = lambda *arguments, **named: FACTOR * right(*arguments, **named)
    return JaxTraining("jit")


def faulty_scratchvae():
    from benchmarks.peers import scratchvae_training

    right = scratchvae_training.train_on_problem

    def wrong(*arguments):
        record = right(*arguments)
        return {
            name: value if name == "losses" or name.startswith(TRAINED) else FACTOR * value
            for name, value in record.items()
        }

    scratchvae_training.train_on_problem = wrong
    return scratchvae_training.ScratchvaeTraining(1)


if __name__ == "__main__":
    serve({"torch": faulty_torch, "jax": faulty_jax, "scratchvae": faulty_scratchvae}[sys.argv[1]]())
