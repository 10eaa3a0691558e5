"""What a VAE loss found elsewhere maximises: its implied beta, its implied decoder variance, and whether it is a bound.

Every recipe is, up to a factor that only rescales the learning rate,

    loss = c E + w KL

with E the error of one example, summed over its D pixels, and KL = KL(q(z|x) || p(z)), summed over its Z latents; c and
w follow from what is averaged and what is summed. A mean over D pixels makes c = 1/D, a mean over Z latents w = 1/Z; a
mean over the batch of one term but not of the other makes a factor B between them.

Squared error, E = |x - xhat|^2. A Gaussian decoder N(xhat, s2 I) has -log p(x|z) = E / (2 s2) + D/2 log(2 pi s2), so

    -ELBO = E / (2 s2) + KL + D/2 log(2 pi s2)
          = (c E + w KL) / w + D/2 log(2 pi s2)        where 1 / (2 s2) = c / w, that is      s2 = w / (2 c)

Such a loss is the ELBO of a decoder with this variance, beta = 1, and nobody has chosen the variance. Read instead with
s2 = 1 it is 2 c [E/2 + beta KL] with beta = w / (2 c): the same number by another name. The textbook's 1/2 |x - xhat|^2
+ KL is c = 1/2, w = 1: s2 = beta = 1. A mean over D pixels with w = 1 is s2 = D / 2: a decoder that expects noise of
standard deviation sqrt(D / 2) on pixels between 0 and 1.

Cross-entropy, E = -sum_d [x_d log p_d + (1 - x_d) log(1 - p_d)]. A Bernoulli has no variance to absorb the ratio:

    loss = c [E + beta KL]      beta = w / c

For 0/1 pixels E = -log p(x|z), and since KL >= 0, -loss / c <= ELBO <= log p(x) wherever beta >= 1; below 1 the number
can exceed log p(x). For grey pixels exp(-E) is the density of nothing: its integral over x in [0, 1] is at most 1/2 a
pixel, and depends on p.
"""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from scratchvae.finite import is_finite_number, is_whole_number

ERRORS = ("squared", "cross-entropy")
REDUCTIONS = ("sum", "mean")
LARGEST_SIZE = 2**53  # of D, Z and B; together with these weights, nothing that follows leaves the range of a float
SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-100, 1e100
CLOSE = 1e-9  # relative: weights such as 1/784 come typed in, to as many digits


@dataclass(frozen=True)
class Recipe:
    """How a loss is put together: reconstruction_weight * error + kl_weight * KL, each with its reductions.

    Takes     error: "squared" (x - xhat)^2 or "cross-entropy"; data_dim D; latent_dim Z; batch_size B;
              pixels, batch: how the error is reduced over pixels and examples; latents, kl_batch: how the KL is;
              reconstruction_weight, kl_weight; grey: whether there are pixels strictly between 0 and 1;
              code: the lines as people write them
    Raises    ValueError for an unknown reduction, a size or a weight outside its range
    """

    error: str = "squared"
    data_dim: int = 784
    latent_dim: int = 20
    batch_size: int = 100
    pixels: str = "sum"
    batch: str = "mean"
    latents: str = "sum"
    kl_batch: str = "mean"
    reconstruction_weight: float = 1.0
    kl_weight: float = 1.0
    grey: bool = True
    code: str = ""

    def __post_init__(self) -> None:
        if self.error not in ERRORS:
            raise ValueError(f"error is {self.error!r}; expected one of {', '.join(ERRORS)}")
        for name in ("pixels", "batch", "latents", "kl_batch"):
            if getattr(self, name) not in REDUCTIONS:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected sum or mean")
        for name in ("data_dim", "latent_dim", "batch_size"):
            value = getattr(self, name)
            if not is_whole_number(value) or not 1 <= value <= LARGEST_SIZE:
                raise ValueError(f"{name} is {reprlib.repr(value)}; expected a whole number from 1 to 2^53")
            object.__setattr__(self, name, int(value))
        if self.grey not in (True, False):
            raise ValueError(f"grey is {reprlib.repr(self.grey)}; expected True or False")
        for name, expected in (("reconstruction_weight", "a number"), ("kl_weight", "0, or a number")):
            value = getattr(self, name)
            if not (is_finite_number(value) and (value == 0 or SMALLEST_WEIGHT <= float(value) <= LARGEST_WEIGHT)):
                raise ValueError(f"{name} is {reprlib.repr(value)}; expected {expected} from 1e-100 to 1e100")
            object.__setattr__(self, name, float(value))
        if self.reconstruction_weight == 0:
            raise ValueError("reconstruction_weight is 0; expected a positive number: without it there is no decoder")


@dataclass(frozen=True)
class Audit:
    """What a recipe means. loss = factor * mean over examples of (error_scale E + kl_scale KL)."""

    recipe: Recipe
    error_scale: float  # c
    kl_scale: float  # w
    factor: float  # B where the error is summed over the batch, else 1: only the learning rate notices

    @property
    def beta(self) -> float:
        """The KL's weight where the error is a negative log-likelihood: a Bernoulli's, or a unit Gaussian's."""
        return self.kl_scale / (self.error_scale if self.recipe.error == "cross-entropy" else 2 * self.error_scale)

    @property
    def variance(self) -> float | None:
        """s2 of the Gaussian decoder whose ELBO, with beta = 1, the loss is; None for cross-entropy."""
        return self.kl_scale / (2 * self.error_scale) if self.recipe.error == "squared" else None

    @property
    def standard_deviation(self) -> float | None:
        """sqrt(s2), in units of the data."""
        return None if self.variance is None else math.sqrt(self.variance)

    @property
    def is_bound(self) -> bool:
        """Whether `bound` of the loss is at most log p(x), for the likelihood that the recipe implies."""
        if self.kl_scale == 0:
            return False
        if self.recipe.error == "squared":
            return True
        return not self.recipe.grey and self.beta > 1 - CLOSE

    @property
    def is_elbo(self) -> bool:
        """Whether it is the ELBO itself and not something below it."""
        return self.is_bound and (self.recipe.error == "squared" or abs(self.beta - 1) < CLOSE)

    @property
    def scale(self) -> float:
        """What the loss is divided by in `bound`."""
        return self.factor * (self.kl_scale if self.recipe.error == "squared" else self.error_scale)

    @property
    def constant(self) -> float:
        """What the loss leaves out, nats per example: D/2 log(2 pi s2), the normaliser of the Gaussian."""
        if self.recipe.error == "cross-entropy" or not self.variance:
            return 0.0
        return 0.5 * self.recipe.data_dim * math.log(2 * math.pi * self.variance)

    def bound(self, loss: float) -> float:
        """-loss / scale - constant: the lower bound on log p(x), nats per example, that a printed loss stands for.

        Raises    ValueError where the loss is no bound, or no finite number
        """
        if not math.isfinite(loss):
            raise ValueError(f"loss is {loss!r}; expected a finite number")
        if not self.is_bound:
            raise ValueError(f"this loss is no bound on log p(x): {self.verdict}")
        return -loss / self.scale - self.constant

    @property
    def verdict(self) -> str:
        """Whether the number is a bound, in words."""
        return _squared_verdict(self) if self.recipe.error == "squared" else _cross_entropy_verdict(self)

    @property
    def remark(self) -> str:
        """What the ratio of the two terms does to training, in words."""
        return _squared_remark(self) if self.recipe.error == "squared" else _cross_entropy_remark(self)

    def as_dict(self) -> dict[str, Any]:
        """Everything by name."""
        return {
            "recipe": asdict(self.recipe),
            "error_scale": self.error_scale,
            "kl_scale": self.kl_scale,
            "factor": self.factor,
            "beta": self.beta,
            "variance": self.variance,
            "standard_deviation": self.standard_deviation,
            "is_bound": self.is_bound,
            "is_elbo": self.is_elbo,
            "scale": self.scale,
            "constant": self.constant,
            "verdict": self.verdict,
            "remark": self.remark,
        }


def audit(recipe: Recipe) -> Audit:
    """What a recipe maximises.

    Formula   c = reconstruction_weight [/ D where pixels are averaged]
              w = kl_weight [/ Z where latents are averaged] [* B or 1/B where only one is a mean over the batch]
              squared error: s2 = w / (2 c), the ELBO of that decoder.  cross-entropy: beta = w / c
    """
    c = recipe.reconstruction_weight / (recipe.data_dim if recipe.pixels == "mean" else 1)
    w = recipe.kl_weight / (recipe.latent_dim if recipe.latents == "mean" else 1)
    error_factor = recipe.batch_size if recipe.batch == "sum" else 1
    kl_factor = recipe.batch_size if recipe.kl_batch == "sum" else 1
    return Audit(recipe, c, w * kl_factor / error_factor, error_factor)


def _squared_verdict(found: Audit) -> str:
    if found.kl_scale == 0:
        return (
            "No bound: without a KL term this is a plain autoencoder, and nothing keeps the density over x normalised."
        )
    divided = "-loss" if found.scale == 1 else f"-loss / {found.scale:.6g}"
    sign = "-" if found.constant > 0 else "+"
    return (
        f"Yes, with its constant: {divided} {sign} {abs(found.constant):.6g} is the ELBO, in nats per example, of a "
        f"Gaussian decoder with variance {found.variance:.6g}. The printed number itself is not."
    )


def _squared_remark(found: Audit) -> str:
    deviation = found.standard_deviation or 0.0
    if deviation == 0:
        return "The decoder is told that pixels have no noise at all."
    if deviation > 1:
        return (
            f"The decoder is told that pixels carry noise of standard deviation {deviation:.3g}. For data in [0, 1] "
            f"that is more than the range: latent units that explain less variance than {deviation**2:.3g} collapse to "
            "the prior."
        )
    if deviation > 0.35:
        return (
            f"The decoder is told that pixels carry noise of standard deviation {deviation:.3g}: strong for data in "
            "[0, 1]. Means come out smooth, and draws from p(x|z) look like noise."
        )
    return f"The decoder is told that pixels carry noise of standard deviation {deviation:.3g}."


def _cross_entropy_verdict(found: Audit) -> str:
    nats = "-loss" if found.scale == 1 else f"-loss / {found.scale:.6g}"
    if found.kl_scale == 0:
        return "No bound: without a KL term this is a plain autoencoder."
    if found.recipe.grey:
        return (
            "No: on grey pixels exp(-cross-entropy) is not a normalised density (it integrates to at most 1/2 a "
            f"pixel), so {nats} is the ELBO of no model of these data: a normaliser is missing, of at least D log 2 = "
            f"{found.recipe.data_dim * math.log(2):.4g} nats. Binarize them, or use a continuous Bernoulli."
        )
    if abs(found.beta - 1) < CLOSE:
        return f"Yes: {nats} is the ELBO, in nats per example."
    if found.beta > 1:
        return f"Yes, but a looser one: {nats} = ELBO - {found.beta - 1:.4g} KL, and KL >= 0. It is not the ELBO."
    return f"No: {nats} = ELBO + {1 - found.beta:.4g} KL can be above log p(x)."


def _cross_entropy_remark(found: Audit) -> str:
    if abs(found.beta - 1) < CLOSE:
        return "The two terms are weighted as the ELBO weighs them."
    if found.beta > 1:
        return f"The KL counts {found.beta:.4g} times: fewer active units, blunter reconstructions."
    return (
        f"The KL counts {found.beta:.4g} times, so q(z|x) may leave the prior: reconstructions are sharp, but z drawn "
        "from the prior falls where the decoder has seen nothing."
    )


PRESETS: Mapping[str, Recipe] = MappingProxyType(
    {
        "elbo-bernoulli": Recipe(
            error="cross-entropy",
            grey=False,
            code="F.binary_cross_entropy(xhat, x, reduction='sum') / B + kl.sum(1).mean(), x binarized",
        ),
        "textbook-gaussian": Recipe(
            reconstruction_weight=0.5, code="0.5 * ((x - xhat) ** 2).sum(1).mean() + kl.sum(1).mean()"
        ),
        "pytorch-example": Recipe(
            error="cross-entropy",
            batch_size=128,
            batch="sum",
            kl_batch="sum",
            code="F.binary_cross_entropy(xhat, x, reduction='sum') - 0.5 * torch.sum(1 + ...)",
        ),
        "keras-cross-entropy": Recipe(
            error="cross-entropy",
            latent_dim=2,
            batch_size=128,
            pixels="mean",
            reconstruction_weight=784.0,
            code="K.mean(binary_crossentropy(x, xhat) * 784 - 0.5 * K.sum(1 + ..., axis=-1))",
        ),
        "keras-mse": Recipe(
            latent_dim=2,
            batch_size=128,
            pixels="mean",
            reconstruction_weight=784.0,
            code="K.mean(mse(x, xhat) * 784 - 0.5 * K.sum(1 + ..., axis=-1))",
        ),
        "mse-sum": Recipe(
            batch="sum", kl_batch="sum", code="F.mse_loss(xhat, x, reduction='sum') - 0.5 * torch.sum(1 + ...)"
        ),
        "mse-mean": Recipe(pixels="mean", code="F.mse_loss(xhat, x) + torch.mean(-0.5 * torch.sum(1 + ..., dim=1))"),
        "mse-mean-kl-sum": Recipe(
            pixels="mean",
            kl_batch="sum",
            code="F.mse_loss(xhat, x) - 0.5 * torch.sum(1 + ...)   # KL summed over the batch",
        ),
        "mse-mean-kl-mean": Recipe(
            pixels="mean", latents="mean", code="F.mse_loss(xhat, x) - 0.5 * torch.mean(1 + ...)"
        ),
        "bce-mean-kl-mean": Recipe(
            error="cross-entropy",
            pixels="mean",
            latents="mean",
            code="F.binary_cross_entropy(xhat, x) - 0.5 * torch.mean(1 + ...)",
        ),
        "pytorch-vae": Recipe(
            data_dim=3 * 64 * 64,
            latent_dim=128,
            batch_size=64,
            pixels="mean",
            kl_weight=0.00025,
            code="F.mse_loss(xhat, x) + 0.00025 * torch.mean(-0.5 * torch.sum(1 + ..., dim=1))   # kld_weight, M_N",
        ),
        "lightning-bolts": Recipe(
            data_dim=3 * 32 * 32,
            latent_dim=256,
            batch_size=256,
            pixels="mean",
            latents="mean",
            kl_weight=0.1,
            code="F.mse_loss(xhat, x) + 0.1 * kl_divergence(q, p).mean()   # kl_coeff",
        ),
        "beta-vae": Recipe(
            error="cross-entropy",
            data_dim=64 * 64,
            latent_dim=10,
            batch_size=64,
            kl_weight=4.0,
            grey=False,
            code="F.binary_cross_entropy_with_logits(out, x, reduction='sum') / B + 4 * kl.sum(1).mean()",
        ),
    }
)
"""Losses that people copy, under the place they are copied from or what they do."""
