"""The systems that are compared, each at its best and as its users run it."""

import os

from benchmarks.processes import System

WIDE_VECTORS = "--xla_cpu_prefer_vector_width=512"


def with_wide_vectors() -> dict[str, str]:
    """XLA's flag for 512-bit vectors, added to whatever flags are set."""
    return {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {WIDE_VECTORS}".strip()}


def _torch(name: str, mode: str) -> System:
    return System(name, "benchmarks.peers.torch_training", "torch", ("--mode", mode), takes_threads=True)


def _jax(name: str, mode: str, environment: dict[str, str] | None = None) -> System:
    return System(name, "benchmarks.peers.jax_training", "jax", ("--mode", mode), environment or {})


PEAK = System("machine peak", "benchmarks.peak", "numba", takes_threads=True)
SCRATCHVAE = "scratchvae"
TORCH_EAGER = "torch eager"
TRAINING_SYSTEMS = {
    system.name: system
    for system in (
        System(SCRATCHVAE, "benchmarks.peers.scratchvae_training", "numba", takes_threads=True),
        _jax("jax scan 512-bit", "scan", with_wide_vectors()),
        _jax("jax scan", "scan"),
        _jax("jax jit", "jit"),
        _torch(TORCH_EAGER, "eager"),
        _torch("torch.compile", "default"),
        _torch("torch.compile max-autotune", "max-autotune"),
        System("tensorflow xla", "benchmarks.peers.tensorflow_training", "tensorflow", takes_threads=True),
    )
}
SAMPLING_SYSTEMS = {
    system.name: system
    for system in (
        System(SCRATCHVAE, "benchmarks.peers.scratchvae_sampling", "numba", takes_threads=True),
        System("numpy", "benchmarks.peers.numpy_sampling", "numpy"),
        System("torch", "benchmarks.peers.torch_sampling", "torch", takes_threads=True),
        System("jax threefry", "benchmarks.peers.jax_sampling", "jax", (), with_wide_vectors()),
        System("jax rbg", "benchmarks.peers.jax_sampling", "jax", ("--generator", "rbg"), with_wide_vectors()),
    )
}


def _torch_evaluation(name: str, mode: str) -> System:
    return System(name, "benchmarks.peers.torch_evaluation", "torch", ("--mode", mode), takes_threads=True)


EVALUATION_SYSTEMS = {
    system.name: system
    for system in (
        System(SCRATCHVAE, "benchmarks.peers.scratchvae_evaluation", "numba", takes_threads=True),
        System("jax 512-bit", "benchmarks.peers.jax_evaluation", "jax", (), with_wide_vectors()),
        System("jax", "benchmarks.peers.jax_evaluation", "jax"),
        _torch_evaluation(TORCH_EAGER, "eager"),
        _torch_evaluation("torch.compile", "default"),
    )
}
