"""Pictures of a run and of a model: each is one call that takes numbers or a model and returns a matplotlib Axes.

    training_curves    every term of the ELBO against the epoch      latent_scatter      means of q(z|x), by label
    reconstructions    data above what the model makes of them       posterior_ellipses  q(z|x) of each example
    samples            means of p(x|z) at draws of z                 kl_per_dimension    what each dimension carries
    traversals         one latent dimension varied at a time         manifold            p(x|z) over a plane of z

`axes` is where to draw, so that a notebook can place a picture anywhere; without it the Axes stands on a figure of its
own, `axes.figure`. Data are images where `image_shape` says so or their dimensions are a square, else points of a plane
where there are two dimensions, else rows of numbers. All terms are in nats per example.
"""

from .curves import learning_curve, learning_curves, training_curves
from .drawing import figure_bytes, grid_png, image_grid, image_shape_of, light_and_dark, show_grid, style
from .examples import pictures, reconstructions, samples, show_lines
from .latent_space import kl_per_dimension, latent_scatter, main_plane, manifold, posterior_ellipses, traversals

__all__ = [
    "figure_bytes",
    "grid_png",
    "image_grid",
    "image_shape_of",
    "kl_per_dimension",
    "latent_scatter",
    "learning_curve",
    "learning_curves",
    "light_and_dark",
    "main_plane",
    "manifold",
    "pictures",
    "posterior_ellipses",
    "reconstructions",
    "samples",
    "show_grid",
    "show_lines",
    "style",
    "training_curves",
    "traversals",
]
