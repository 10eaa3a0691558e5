"""The model as a scikit-learn transformer and density: fit, transform, inverse_transform, sample, score.

    VariationalAutoencoder    scikit-learn's conventions over `VAE` and `fit`: nothing is computed here that they do not

Rows are examples, columns are features; N examples, D features, Z latent dimensions. Scores are nats per example.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scratchvae.arguments import one_of, whole_positive
from scratchvae.data.binarize import mean_shown
from scratchvae.data.checks import check_pixels
from scratchvae.evidence.door import door
from scratchvae.evidence.estimate import log_evidence
from scratchvae.evidence.importance import BLOCK_ROWS, BLOCK_SAMPLES
from scratchvae.finite import quiet
from scratchvae.likelihoods import as_likelihood, data_set_for
from scratchvae.objectives import Objective
from scratchvae.reference.random import Stream
from scratchvae.schedules import LearningRate
from scratchvae.training import History, Trainer, _check, _Run
from scratchvae.vae import VAE

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_array, check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"VariationalAutoencoder needs scikit-learn 1.6 or newer ({error}): pip install -U scikit-learn"
    ) from None

FLOATS = (np.float64, np.float32)  # what X may be; anything else becomes the first


class VariationalAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A variational autoencoder with scikit-learn's methods: a nonlinear relative of PCA and factor analysis.

    Model     z ~ N(0, I_Z), x ~ p(x|z) around a decoder's output; `transform` gives the mean of q(z|x)
    Takes     latent_dim: Z, how many columns `transform` returns
              hidden: sizes of the encoder's hidden layers, mirrored by the decoder; () for a linear model
              likelihood: "gaussian-learned" for real numbers, one noise variance for all columns as in probabilistic
              PCA: bring columns to one scale first, as for PCA (`StandardScaler`). "gaussian-learned-diagonal" has one
              per column, as in factor analysis. "bernoulli" is for 0 and 1, or probabilities in [0, 1] that are drawn
              afresh as 0 and 1 at each use; the others: see `VAE`
              activation of the hidden layers: tanh keeps the encoder's output bounded whatever the columns' scale
              objective: what is maximised, such as `ELBO(beta=4)` or `IWAE(num_samples=5)`; None is `ELBO()`
              epochs, batch_size, learning_rate: passes over the data, rows an update, Adam's step or a schedule of it
              binarize: see `fit`; None draws 0 and 1 afresh under a Bernoulli and leaves other data as they are;
              "fixed" draws by a row's values, not its number: a row is scored as it was trained on, wherever it stands
              bound, num_samples: what `score_samples` returns, from K samples of q(z|x): "iwae", the
              importance-weighted bound, which rises towards log p(x) with K; or "elbo"
              engine: "compiled", or "reference", which starts at once
              random_state: an integer S gives the bits of `VAE(seed=S)` and `fit(seed=S)`, but for "fixed"
              verbose: a progress bar on standard error, where that is a terminal
    Has       after fitting: vae_, the `VAE` itself; history_, a `History`; n_iter_, epochs done; seed_;
              n_features_in_; feature_names_in_ where X had column names
    Numbers   X of float32 is computed in float32, anything else in float64. Under a likelihood of values in [0, 1]
              uint8 means value / 255, in float32, as elsewhere in this package; fitted on other numbers, it refuses
              uint8 with nothing above 1, which is hardly meant as pixels
    Raises    ValueError for bad parameters or data, when fitted; DivergedError when the loss is no longer finite
    Source    Kingma, Welling 2013; the bound: Burda, Grosse, Salakhutdinov 2015, equation 8
    """

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        hidden: Sequence[int] = (64,),
        likelihood: str = "gaussian-learned",
        activation: str = "tanh",
        objective: Objective | None = None,
        epochs: int = 200,
        batch_size: int = 50,
        learning_rate: LearningRate = 5e-3,
        binarize: str | None = None,
        bound: str = "iwae",
        num_samples: int = 100,
        engine: str = "compiled",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.likelihood = likelihood
        self.activation = activation
        self.objective = objective
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.binarize = binarize
        self.bound = bound
        self.num_samples = num_samples
        self.engine = engine
        self.random_state = random_state
        self.verbose = verbose

    # --- fitting ----------------------------------------------------------------------------------------------------

    def fit(self, X: ArrayLike, y: object = None) -> "VariationalAutoencoder":  # noqa: N803 - scikit-learn's name
        """Train a new model on X (N, D) for `epochs` passes; y is not looked at. Returns itself."""
        epochs = whole_positive("epochs", self.epochs)
        with self._as_it_was_if_that_fails():
            return self._train(self._new_model(X), epochs)

    def partial_fit(self, X: ArrayLike, y: object = None) -> "VariationalAutoencoder":  # noqa: N803
        """One more pass, over X (N, D) alone: for data that come in parts. Returns itself.

        The first call makes the model, which the parameters of the architecture then no longer change. Adam's moments
        go on from call to call: n calls with the same X are `fit` with epochs=n, to the bit.
        """
        with self._as_it_was_if_that_fails():
            return self._train(self._validated(X) if hasattr(self, "vae_") else self._new_model(X), epochs=1)

    @contextmanager
    def _as_it_was_if_that_fails(self) -> Iterator[None]:
        """Whatever ends training early, an estimator is no more fitted than before, and no less."""
        kept = dict(self.__dict__)
        states = [self.vae_.parameters, *self._moments] if hasattr(self, "vae_") else []
        arrays, epochs = [state.flat.copy() for state in states], list(self.history_.epochs) if states else []
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(kept)
            for state, array in zip(states, arrays, strict=True):
                state.flat[:] = array
            if states:
                self.history_.epochs[:] = epochs
            raise

    def _new_model(self, X: ArrayLike) -> NDArray:  # noqa: N803
        """Start over: an untrained model for X. Returns X as data."""
        unit_interval = as_likelihood(self.likelihood).unit_interval
        x = validate_data(self, X, dtype=_dtypes(FLOATS, unit_interval))
        self.seed_ = self._seed(self.random_state)
        self.vae_ = VAE(
            data_dim=x.shape[1],
            latent_dim=self.latent_dim,
            hidden=self.hidden,
            likelihood=self.likelihood,
            activation=self.activation,
            dtype="float32" if x.dtype == np.uint8 else x.dtype.name,
            engine=self.engine,
            seed=self.seed_,
        )
        self.history_ = History()
        self._pixels = x.dtype == np.uint8
        self._updates = 0
        self._moments = tuple(self.vae_.parameters.zeros_like(lasting=True) for _ in range(2))
        return x

    def _train(self, x: NDArray, epochs: int) -> "VariationalAutoencoder":
        """Go on for so many epochs, as `scratchvae.fit` does."""
        one_of("bound", self.bound, BOUNDS), whole_positive("num_samples", self.num_samples)  # before the long part
        plan = _check(self.vae_, x, None, self.learning_rate, self.objective, self.binarize, None, False)
        seen, binarize = plan.x, plan.binarize
        if binarize == "fixed":  # by the values of a row, not its number, so that it is scored as it was trained on
            seen, binarize = self._binarized(self.vae_._batch(x)), "none"
        if not self.history_.epochs:
            with quiet():  # as in `scratchvae.fit`
                self.vae_.set_output_bias(mean_shown(seen, binarize))
        trainer = Trainer(self.vae_, seen, self.learning_rate, plan.objective, binarize, self.seed_)
        trainer.first, trainer.second = self._moments
        trainer.updates = self._updates
        run = _Run(trainer, plan, len(self.history_) + epochs, whole_positive("batch_size", self.batch_size))
        run.history = self.history_
        run.train(self.verbose, on_epoch=None)
        self._updates = trainer.updates
        self.n_iter_ = len(self.history_)
        return self

    # --- the fitted model -------------------------------------------------------------------------------------------

    def transform(self, X: ArrayLike) -> NDArray:  # noqa: N803
        """The mean of q(z|x). Takes X (N, D); returns (N, Z).

        Under binarize "threshold" and "fixed" rows are encoded as 0 and 1, as training sees them; else as they are:
        under "dynamic" that is the mean of what is drawn.
        """
        x = self._validated(X)
        if self.binarize in ("threshold", "fixed"):
            x = self._binarized(self.vae_._batch(x))
        return self.vae_.encode(x).mu

    def inverse_transform(self, X: ArrayLike) -> NDArray:  # noqa: N803
        """The mean of p(x|z). Takes latent points X (N, Z); returns (N, D)."""
        check_is_fitted(self)
        return self.vae_.decode(check_array(X, dtype=self.vae_.dtype))

    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> NDArray:
        """Draws from the model: z ~ N(0, I), then x ~ p(x|z).

        Takes     n_samples; random_state: by default that of the constructor, so that an integer there gives the same
                  draws at every call, and None new ones
        Returns   (n_samples, D)
        """
        check_is_fitted(self)
        return self.vae_.sample(n_samples, self._seed(self.random_state if random_state is None else random_state))

    def score_samples(self, X: ArrayLike) -> NDArray:  # noqa: N803
        """The lower bound on log p(x) that `bound` names, from `num_samples` samples of q(z|x).

        The noise of a row is a function of the row's own values and of `seed_`, so its score depends neither on its
        place nor on the other rows, and is the same at every call; equal rows have equal scores. That is to the bit
        with the compiled engine; with the reference engine but for the rounding of NumPy's products.

        Takes     X (N, D)
        Returns   (N,) float64, in nats
        """
        x = self._validated(X)
        bound, num_samples = one_of("bound", self.bound, BOUNDS), whole_positive("num_samples", self.num_samples)
        x = self._binarized(self.vae_._batch(x))
        return BOUNDS[bound](self.vae_, x, num_samples, self.seed_, _row_keys(x))

    def score(self, X: ArrayLike, y: object = None) -> float:  # noqa: N803
        """The mean of `score_samples`, in nats per example, higher is better; y is not looked at."""
        return float(self.score_samples(X).mean())

    # --- what scikit-learn asks for ---------------------------------------------------------------------------------

    @property
    def _n_features_out(self) -> int:
        """How many columns `get_feature_names_out` names: variationalautoencoder0, ..."""
        return self.vae_.latent_dim

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = [np.dtype(dtype).name for dtype in FLOATS]
        return tags

    def _validated(self, X: ArrayLike) -> NDArray:  # noqa: N803
        """X as data of the fitted model."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=_dtypes((self.vae_.dtype,), self.vae_.likelihood.unit_interval))
        if not self._pixels:  # where it was fitted on pixels, some rows may well be that dark
            check_pixels(x, "X")
        return x

    @staticmethod
    def _seed(random_state: int | np.random.RandomState | None) -> int:
        """An integer as it is; one draw from a generator, or from NumPy's own for None."""
        generator = check_random_state(random_state)
        return int(random_state) if isinstance(random_state, Integral) else int(generator.randint(2**31))

    def _binarized(self, x: NDArray) -> NDArray:
        """Rows as 0 and 1 where training saw them so; the draws of a row are a function of its values."""
        method = self.binarize or ("dynamic" if self.vae_.likelihood.binary else "none")
        data_set_for(self.vae_.likelihood, x, self.vae_.data_dim, method, name="X")
        if method == "none":
            return x
        if method == "threshold":
            return (x >= 0.5).astype(x.dtype)
        draw = self.vae_.ops.bernoulli_probabilities
        return draw(x, self.seed_, Stream.EVIDENCE_BINARIZE, 0, _row_keys(x), dtype=x.dtype)


def _dtypes(floats: Sequence[Any], unit_interval: bool) -> list[Any]:
    """What X may be as it is; anything else becomes the first."""
    return [*floats, np.uint8] if unit_interval else list(floats)


def _row_keys(x: NDArray) -> NDArray[np.int64]:
    """A 32-bit address of random numbers for every row: the CRC-32 of its values, with -0 as 0."""
    return np.array([zlib.crc32(row) for row in np.ascontiguousarray(x) + 0.0], np.int64)


@door
def _elbo_bound(vae: VAE, x: NDArray, num_samples: int, seed: int, examples: NDArray) -> NDArray:
    """The ELBO of every row, its reconstruction the mean over K samples, its KL exact. Returns (N,), in nats."""
    parts = []
    for start in range(0, len(x), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        total = np.zeros(len(examples[rows]))
        for block, first in enumerate(range(0, num_samples, BLOCK_SAMPLES)):
            samples = min(BLOCK_SAMPLES, num_samples - first)
            eps = vae.noise(seed, Stream.EVIDENCE, block, examples[rows], samples)
            total += samples * vae.elbo(x[rows], eps).elbo
        parts.append(total / num_samples)
    return np.concatenate(parts)


def _importance_bound(vae: VAE, x: NDArray, num_samples: int, seed: int, examples: NDArray) -> NDArray:
    """The importance-weighted bound of K samples, of every row. Returns (N,), in nats."""
    return log_evidence(vae, x, "importance", num_samples, seed, examples=examples).log_evidence


BOUNDS: Mapping[str, Callable[..., NDArray]] = MappingProxyType({"elbo": _elbo_bound, "iwae": _importance_bound})
