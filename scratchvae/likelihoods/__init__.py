"""What the decoder's output means: p(x|z), one record for each kind.

A likelihood says which parameters of its own it learns ("likelihood.<name>"), gives log p(x|z) and its gradient by
the engine's operations, turns the decoder's output into the mean of p(x|z) and into draws from it, names the output
bias that fits the training mean before the first step, and refuses data that it cannot explain.

    likelihood                           what every one of them offers
    bernoulli, continuous_bernoulli      0 and 1; grey values in between
    gaussian                             real numbers
    discretised_logistic                 pixels of 256 levels, or another number of them
    categorical, poisson                 one-hot columns; counts
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from scratchvae.arguments import in_short
from scratchvae.likelihoods.bernoulli import Bernoulli
from scratchvae.likelihoods.categorical import Categorical
from scratchvae.likelihoods.continuous_bernoulli import ContinuousBernoulli
from scratchvae.likelihoods.discretised_logistic import DiscretisedLogistic
from scratchvae.likelihoods.gaussian import LearnedGaussian, UnitGaussian
from scratchvae.likelihoods.likelihood import Draws, Likelihood, data_for, data_set_for
from scratchvae.likelihoods.poisson import Poisson

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretisedLogistic",
    "Draws",
    "LearnedGaussian",
    "Likelihood",
    "Poisson",
    "UnitGaussian",
    "as_likelihood",
    "data_for",
    "data_set_for",
    "likelihood_named",
]

LIKELIHOODS: Mapping[str, Likelihood] = MappingProxyType(
    {
        likelihood.name: likelihood
        for likelihood in (
            Bernoulli(),
            UnitGaussian(),
            LearnedGaussian(),
            LearnedGaussian(per_dimension=True),
            ContinuousBernoulli(),
            DiscretisedLogistic(),
            DiscretisedLogistic(per_dimension=True),
            Categorical(),
            Poisson(),
        )
    }
)

WITH_NUMBERS: Mapping[str, Callable[..., Likelihood]] = MappingProxyType(
    {
        "categorical": lambda *sizes: Categorical(sizes),
        "discretised-logistic": lambda levels: DiscretisedLogistic(per_dimension=False, levels=levels),
        "discretised-logistic-diagonal": lambda levels: DiscretisedLogistic(per_dimension=True, levels=levels),
    }
)
"""Those that take whole numbers after a colon: many, or one."""


def likelihood_named(name: object) -> Likelihood:
    """The likelihood of a name: one of LIKELIHOODS, "categorical:3,4,5" (groups), "discretised-logistic:17" (levels).

    Raises    ValueError, one line, for anything else
    """
    stem, colon, text = name.partition(":") if isinstance(name, str) else ("", "", "")
    if stem not in LIKELIHOODS:
        raise ValueError(f"likelihood is {in_short(name)}; expected one of {', '.join(LIKELIHOODS)}")
    if not colon:
        return LIKELIHOODS[stem]
    if stem not in WITH_NUMBERS:
        raise ValueError(f"likelihood is {name!r}; expected {stem}, which takes nothing after a colon")
    many = stem == "categorical"
    numbers = text.split(",")
    if not all(number.isascii() and number.isdigit() for number in numbers) or (len(numbers) > 1 and not many):
        expected = "the groups' numbers of columns, as in categorical:3,4,5" if many else f"levels, as in {stem}:17"
        raise ValueError(f"likelihood is {name!r}; expected {expected}")
    return WITH_NUMBERS[stem](*map(int, numbers))


def as_likelihood(likelihood: str | Likelihood) -> Likelihood:
    """The likelihood of a name, or the one given: one that its name makes again, so that files can hold the name.

    Raises    ValueError, one line, for anything else
    """
    name = getattr(likelihood, "name", likelihood)
    made = likelihood_named(name)
    if likelihood not in (name, made):
        raise ValueError(f"likelihood is {likelihood!r}; expected a name or a record of scratchvae.likelihoods")
    return made
