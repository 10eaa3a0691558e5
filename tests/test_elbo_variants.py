"""What may be done to the ELBO's KL: a floor for each dimension, a weight that rises, an estimate from the samples."""

import numpy as np
import pytest

import scratchvae as sv
from scratchvae.objectives import Sampled
from scratchvae.posteriors import DiagonalPosterior
from scratchvae.training import Trainer
from tests.cases import build, with_posterior

POSTERIORS = ("diagonal", "full")


def kl_per_dimension(vae, x):
    """(B, Z), exact."""
    sampled, _ = vae.forward(vae._batch(x), np.zeros((len(x), 1, vae.latent_dim)))
    return vae.posterior.kl_per_dimension_forward(sampled.head)[0]


# --- free bits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_a_dimension_below_its_free_bits_counts_as_its_floor(engine, posterior):
    vae, x, eps = build(engine=engine, latent_dim=3, posterior=posterior)
    kl = kl_per_dimension(vae, x)
    floor = float(np.median(kl)) + 0.01  # some below, some above
    terms, _ = vae.value_and_grad(x, eps, sv.ELBO(2, beta=0.7, free_bits=floor))
    want = terms.reconstruction - 0.7 * np.maximum(kl, floor).sum(axis=1)
    np.testing.assert_allclose(terms.objective, want, rtol=1e-12)
    np.testing.assert_allclose(terms.kl, kl.sum(axis=1), rtol=1e-12, err_msg="the KL that is reported has no floor")
    assert (terms.objective <= terms.reconstruction - 0.7 * terms.kl).all(), "a floor only takes away"


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_free_bits_below_every_kl_change_nothing_and_above_every_kl_switch_it_off(engine, posterior):
    vae, x, eps = build(engine=engine, posterior=posterior)
    kl = kl_per_dimension(vae, x)
    for free_bits, same in ((0.9 * kl.min(), sv.ELBO(2)), (1.1 * kl.max(), sv.ELBO(2, beta=0.0))):
        _, gradients = vae.value_and_grad(x, eps, sv.ELBO(2, free_bits=free_bits))
        for name, want in vae.value_and_grad(x, eps, same)[1].items():
            np.testing.assert_allclose(gradients[name], want, rtol=1e-10, atol=1e-14)


def test_with_free_bits_a_row_does_not_notice_its_neighbours(engine):
    """The reason why each example has its own floor: the batch's mean would be another for each batch."""
    vae, x, eps = build(engine=engine, rows=6)
    objective = sv.ELBO(2, free_bits=0.5)
    together = vae.value_and_grad(x, eps, objective)[0].objective
    apart = [vae.value_and_grad(x[i : i + 1], eps[i : i + 1], objective)[0].objective[0] for i in range(6)]
    np.testing.assert_allclose(together, apart, rtol=1e-13)


def test_a_kl_that_is_not_a_number_does_not_hide_under_the_floor(ops):
    head = np.array([[np.nan, 0.5, 0.0, 0.0]])
    eps = np.zeros((1, 1, 2))
    z, kl, _ = sv.VAE(3, 2).posterior.forward(head, eps)
    sampled = Sampled(head, eps, z, kl, np.zeros((1, 1)), np.zeros(1), DiagonalPosterior(ops))
    value, upstream = sv.ELBO(free_bits=10.0).evaluate(ops, sampled)
    assert np.isnan(value).all()
    assert np.isnan(upstream.dhead[0, 0])
    assert upstream.dhead[0, 1] == 0


def test_a_dimension_whose_kl_is_its_free_bits_is_not_pushed_further_down(ops):
    """mu = 1 at variance 1 costs 1/2 nat, exactly; twice the mean is above the floor."""
    head, eps = np.array([[1.0, 2.0, 0.0, 0.0]]), np.zeros((1, 1, 2))
    z, kl, _ = ops.posterior_forward(head, eps)
    sampled = Sampled(head, eps, z, kl, np.zeros((1, 1)), np.zeros(1), DiagonalPosterior(ops))
    _, upstream = sv.ELBO(free_bits=0.5).evaluate(ops, sampled)
    np.testing.assert_array_equal(upstream.dhead, [[0, 2, 0, 0]])


def test_free_bits_keep_latent_dimensions_in_use():
    """A KL of four times its weight: without a floor the posterior collapses to the prior."""
    kl = {}
    for free_bits in (0.0, 0.3):
        case = with_posterior("diagonal", "reference")
        objective = sv.ELBO(beta=4.0, free_bits=free_bits)
        kl[free_bits] = sv.fit(case.vae, case.x, 80, 20, 0.02, objective, progress=False)["kl"][-1]
    assert kl[0.0] < 0.01
    assert kl[0.3] == pytest.approx(0.6, abs=0.2), "two dimensions at 0.3 nats each, about"


# --- warm-up ----------------------------------------------------------------------------------------------------------


def test_the_weight_of_the_kl_rises_linearly_and_stays():
    objective = sv.ELBO(beta=0.8, warm_up=4)
    assert [objective.at(update).beta for update in (1, 2, 3, 4, 5, 1000)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 0.8, 0.8]
    )
    assert objective.at(4) is objective
    for rest in ({"free_bits": 0.1}, {"kl": "monte-carlo"}, {"name": "rising"}):
        assert sv.ELBO(3, beta=0.8, warm_up=4, **rest).at(1) == sv.ELBO(3, beta=0.2, **rest)
    assert sv.ELBO().at(1) == sv.ELBO()
    assert sv.ELBO(beta=10**20).beta == 1e20
    with pytest.raises(ValueError, match="free_bits is 1000"):
        sv.ELBO(free_bits=10**400)


def test_the_trainer_tells_the_objective_the_update(engine):
    case = with_posterior("diagonal", engine)
    trainer = Trainer(case.vae, case.x, objective=sv.ELBO(warm_up=4), binarize="none")
    for update in range(1, 7):
        terms = trainer.step(np.arange(10))
        weight = min(1.0, update / 4)
        np.testing.assert_allclose(terms.objective, terms.reconstruction - weight * terms.kl, rtol=1e-12)
    found = trainer.validate(case.x)
    assert found.objective == pytest.approx(found.elbo, rel=1e-12), "held-out terms have the full weight"


def test_a_run_stopped_in_its_warm_up_goes_on_to_the_same_bits(engine, tmp_path):
    runs = []
    for stops in ((4,), (1, 2, 4)):
        case, path = with_posterior("full", engine), tmp_path / f"{len(stops)}.safetensors"
        for number, epochs in enumerate(stops):
            options = {"objective": sv.ELBO(free_bits=0.1, warm_up=6), "checkpoint": path, "resume": number > 0}
            sv.fit(case.vae, case.x, epochs, 20, 0.01, progress=False, **options)
        runs.append(case.vae.parameters.flat.copy())
    np.testing.assert_array_equal(*runs)
    with pytest.raises(ValueError, match="was trained with objective"):
        sv.fit(case.vae, case.x, 5, 20, 0.01, sv.ELBO(free_bits=0.1), checkpoint=path, resume=True, progress=False)


# --- the KL by Monte Carlo --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_the_monte_carlo_bound_is_the_mean_of_the_log_weights_and_meets_the_exact_one(engine, posterior):
    vae, x, _ = build(engine=engine, posterior=posterior)
    eps = np.random.default_rng(0).normal(size=(3, 20_000, 2))
    exact, sampled = (vae.value_and_grad(x, eps, sv.ELBO(20_000, kl=kl))[0] for kl in ("exact", "monte-carlo"))
    np.testing.assert_array_equal(sampled.elbo, exact.elbo)
    assert (np.abs(sampled.objective - exact.objective) < 0.06).all()
    assert (sampled.objective != exact.objective).all()
    each = [vae.value_and_grad(x, eps[:, k], sv.IWAE(1))[0].objective for k in range(5)]
    five = vae.value_and_grad(x, eps[:, :5], sv.ELBO(5, kl="monte-carlo"))[0].objective
    np.testing.assert_allclose(five, np.mean(each, axis=0), rtol=1e-11)


@pytest.mark.parametrize("beta", [0.0, 0.3, 2.0])
def test_beta_weighs_the_estimated_kl_alone(engine, beta):
    vae, x, eps = build(engine=engine)
    terms, gradients = vae.value_and_grad(x, eps, sv.ELBO(2, beta=beta, kl="monte-carlo"))
    estimate = terms.reconstruction - vae.value_and_grad(x, eps, sv.ELBO(2, kl="monte-carlo"))[0].objective
    np.testing.assert_allclose(terms.objective, terms.reconstruction - beta * estimate, rtol=1e-10, atol=1e-12)
    if beta == 0.0:
        for name, want in vae.value_and_grad(x, eps, sv.ELBO(2, beta=0.0))[1].items():
            np.testing.assert_allclose(gradients[name], want, rtol=1e-10, atol=1e-14)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"free_bits": -0.1}, "free_bits is -0.1; expected a finite number that is not negative"),
        ({"free_bits": float("inf")}, "free_bits is inf"),
        ({"free_bits": True}, "free_bits is True"),
        ({"warm_up": -1}, "warm_up is -1; expected a number of updates, 0 for none"),
        ({"warm_up": 2.5}, "warm_up is 2.5"),
        ({"kl": "sampled"}, "kl is 'sampled'; expected one of exact, monte-carlo"),
        ({"kl": "monte-carlo", "free_bits": 0.1}, "free_bits is 0.1 with kl 'monte-carlo'; expected kl 'exact'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        sv.ELBO(**settings)


def test_log_weights_alone_are_refused_for_every_setting_of_the_kl(ops):
    for settings in ({"beta": 0.5}, {"free_bits": 0.1}, {"warm_up": 5}):
        with pytest.raises(ValueError, match="treats the KL by itself; expected beta 1, no free_bits and no warm_up"):
            sv.ELBO(**settings).of_log_weights(ops, np.zeros((1, 1)))


def test_a_plain_elbo_is_written_as_it_was_before_it_had_settings():
    """A checkpoint keeps it, and older ones must go on."""
    assert repr(sv.ELBO()) == "ELBO(num_samples=1, beta=1.0, name='elbo')"
    assert repr(sv.ELBO(beta=1, free_bits=0)) == repr(sv.ELBO()), "equal settings are written equally"
    assert repr(sv.ELBO(2, free_bits=0.1)) == "ELBO(num_samples=2, beta=1.0, free_bits=0.1, name='elbo')"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "objective",
    [sv.ELBO(2, free_bits=0.1), sv.ELBO(2, beta=0.5, kl="monte-carlo"), sv.STL(2), sv.DReG(2), sv.ScoreFunction(2)],
    ids=str,
)
def test_every_objective_keeps_the_dtype(engine, dtype, objective):
    for posterior in POSTERIORS:
        vae, x, eps = build(engine=engine, dtype=dtype, posterior=posterior)
        terms, gradients = vae.value_and_grad(x, eps, objective)
        assert {array.dtype for array in (*terms, *gradients.values())} == {np.dtype(dtype)}
        sampled, _ = vae.forward(vae._batch(x), eps.astype(dtype))
        _, upstream = objective.evaluate(vae.ops, sampled)
        assert {array.dtype for array in upstream if array is not None} == {np.dtype(dtype)}
