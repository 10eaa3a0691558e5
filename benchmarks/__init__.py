"""Measurements of scratchvae beside PyTorch, JAX and TensorFlow; each module is a program (see README.md)."""
