"""The full-covariance posterior beside the diagonal one: the same where its triangle is zero, else closer to p(z|x)."""

import numpy as np
import pytest
from scipy import stats

import scratchvae as sv
from scratchvae.evidence import active_units, annealed_importance, elbo_surgery, inference_gap
from scratchvae.evidence.exact import LinearGaussian
from scratchvae.evidence.quadrature import integrate
from scratchvae.export.onnx_graphs import encoder_onnx
from scratchvae.export.torch_weights import torch_state
from scratchvae.posteriors import POSTERIORS
from scratchvae.reference.full_posterior import full_head_size, full_latent_dim
from tests.cases import build, linear_gaussian, random_weights

OBJECTIVES = [sv.ELBO(2), sv.ELBO(2, beta=0.3, free_bits=0.2), sv.ELBO(2, kl="monte-carlo"), sv.IWAE(2)]


def full_gaussian(rng, rows=3, latent=3):
    """A head, and the mean and covariance it stands for, by SciPy's conventions."""
    head = rng.normal(size=(rows, full_head_size(latent)))
    q = POSTERIORS["full"].gaussian(head)
    return head, q.mu, q.covariance


def test_the_head_is_the_mean_twice_the_log_of_the_diagonal_and_the_triangle_row_by_row():
    head = np.array([[1.0, 2.0, 3.0, 0.0, np.log(4.0), np.log(9.0), 10.0, 20.0, 21.0]])
    q = POSTERIORS["full"].gaussian(head)
    np.testing.assert_array_equal(q.mu, [[1, 2, 3]])
    np.testing.assert_allclose(q.cholesky, [[[1, 0, 0], [10, 2, 0], [20, 21, 3]]], rtol=1e-14)


@pytest.mark.parametrize("unit", [0, 1, 2])
def test_a_variance_that_overflows_is_alone_in_its_row_and_takes_log_p_x_from_nobody(unit):
    vae = sv.VAE(4, 3, (), "gaussian", dtype="float64", seed=1)
    vae.parameters["encoder.head.bias"][3 + unit] = 800
    x = np.ones((1, 4))
    with np.errstate(over="ignore"):
        covariance = vae.encode(x).covariance[0]
    assert np.isinf(covariance[unit, unit])
    assert not covariance[~np.eye(3, dtype=bool)].any()
    found = integrate(vae, x)
    np.testing.assert_allclose(found.log_evidence, LinearGaussian.from_vae(vae).log_evidence(x), rtol=1e-10)
    assert np.isnan(found.elbo)
    assert np.isinf(found.error)


@pytest.mark.parametrize("latent", [1, 2, 3, 7, 50, 200])
def test_the_size_of_the_head_tells_the_latent_dimensions(latent):
    assert full_head_size(latent) == latent + latent * (latent + 1) // 2
    assert full_latent_dim(np.zeros((1, full_head_size(latent)))) == latent


def test_density_is_scipys(ops):
    rng = np.random.default_rng(0)
    head, mu, covariance = full_gaussian(rng)
    z = rng.normal(size=(3, 4, 3))
    want = [stats.multivariate_normal.logpdf(*of) for of in zip(z, mu, covariance, strict=True)]
    np.testing.assert_allclose(ops.full_gaussian_log_density_forward(z, head)[0], want, rtol=1e-10)


def test_draws_have_the_mean_and_the_covariance_that_the_kl_charges_for(ops):
    rng = np.random.default_rng(0)
    head, mu, covariance = full_gaussian(rng, rows=2)
    z, kl, _ = ops.full_posterior_forward(head, rng.normal(size=(2, 200_000, 3)))
    for draws, mean, spread in zip(z, mu, covariance, strict=True):
        np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.03)
        np.testing.assert_allclose(np.cov(draws.T), spread, atol=0.03 * np.abs(spread).max())
    log_ratio = ops.full_gaussian_log_density_forward(z, head)[0] - ops.standard_normal_log_density_forward(z)[0]
    assert (np.abs(kl - log_ratio.mean(axis=1)) < 5 * log_ratio.std(axis=1) / np.sqrt(200_000)).all()


def test_the_kl_of_each_dimension_given_those_before_it_adds_up(ops):
    rng = np.random.default_rng(0)
    head, mu, covariance = full_gaussian(rng)
    per_dimension, _ = ops.full_kl_per_dimension_forward(head)
    assert (per_dimension > 0).all()
    trace, determinant = np.trace(covariance, axis1=1, axis2=2), np.linalg.slogdet(covariance)[1]
    np.testing.assert_allclose(
        per_dimension.sum(axis=1), 0.5 * ((mu**2).sum(axis=1) + trace - 3 - determinant), rtol=1e-12
    )


def as_full(vae):
    """The same model with a full posterior whose triangle is zero."""
    full = sv.VAE(**(vae.config | {"posterior": "full"}), engine=vae.engine)
    for name, array in full.parameters.items():
        array[...] = 0
        array[tuple(slice(size) for size in vae.parameters[name].shape)] = vae.parameters[name]
    return full


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_with_a_triangle_of_zeros_it_is_the_diagonal_posterior(engine, objective):
    vae, x, eps = build(engine=engine, latent_dim=3)
    full = as_full(vae)
    np.testing.assert_allclose(full.encode(x).covariance, vae.encode(x).covariance, rtol=1e-12)
    want_terms, want = vae.value_and_grad(x, eps, objective)
    terms, gradients = full.value_and_grad(x, eps, objective)
    for mine, theirs in zip(terms, want_terms, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)
    for name, gradient in want.items():
        part = gradients[name][tuple(slice(size) for size in gradient.shape)]
        np.testing.assert_allclose(part, gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_every_gradient_passes_every_gate(engine, objective):
    case = build(4, 3, (3,), engine=engine, rows=4, samples=2, seed=1, posterior="full")
    for method in ("complex", "richardson", "central"):
        table = sv.check_gradients(*case, objective, method)
        assert table.passed, f"{objective}\n{table}"


def test_encode_returns_a_record_that_cannot_be_taken_for_a_diagonal_one(engine):
    vae, x, _ = build(engine=engine, posterior="full")
    q = vae.encode(x)
    assert isinstance(q, sv.FullGaussian)
    assert q.cholesky.shape == (3, 2, 2)
    with pytest.raises(TypeError):
        _, _ = q
    assert isinstance(build(engine=engine).vae.encode(x), sv.Gaussian)


@pytest.mark.parametrize(("posterior", "prefix"), [("diagonal", ""), ("full", "full_")])
def test_a_family_draws_with_the_operations_of_its_engine(engine, ops, posterior, prefix):
    family = build(engine=engine, posterior=posterior).vae.posterior
    assert family.forward is getattr(ops, f"{prefix}posterior_forward")
    assert family.backward is getattr(ops, f"{prefix}posterior_backward")


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match="posterior is 'flow'; expected one of diagonal, full"):
        sv.VAE(4, posterior="flow")


def test_save_and_load_keep_the_family(tmp_path, engine):
    vae, x, eps = build(engine=engine, posterior="full")
    vae.save(tmp_path / "model.safetensors")
    again = sv.VAE.load(tmp_path / "model.safetensors", engine)
    np.testing.assert_array_equal(again.elbo(x, eps).elbo, vae.elbo(x, eps).elbo)
    assert "full" in repr(again)


# --- the approximation gap --------------------------------------------------------------------------------------------


def test_the_elbo_is_the_evidence_where_the_posterior_is_correlated(engine):
    """No diagonal Gaussian can do this: their gap is 1/2 [sum log M_jj - log|M|] whatever the encoder."""
    full, diagonal = (linear_gaussian(engine, orthogonal=False, posterior=name) for name in ("full", "diagonal"))
    eps = np.random.default_rng(0).normal(size=(6, 50, 3))
    exact = LinearGaussian.from_vae(full.vae)
    assert exact.gap > 0.3
    terms, _ = full.vae.value_and_grad(full.x, eps, sv.ELBO(50, kl="monte-carlo"))
    np.testing.assert_allclose(terms.objective, full.log_evidence, rtol=1e-11)
    lost = diagonal.log_evidence - exact.elbo(diagonal.x, diagonal.vae.encode(diagonal.x))
    np.testing.assert_allclose(lost, exact.gap, rtol=1e-9)


@pytest.mark.parametrize("method", ["importance", "quadrature", "ais"])
def test_every_estimate_of_the_evidence_takes_a_full_posterior(method):
    model = linear_gaussian(orthogonal=False, rows=3, posterior="full")
    found = sv.log_evidence(model.vae, model.x, method=method, num_samples=5000)
    tolerance = {"importance": 1e-10, "quadrature": 1e-8, "ais": 0.3}[method]
    np.testing.assert_allclose(found.log_evidence, model.log_evidence, rtol=0, atol=tolerance)


def test_no_estimate_is_above_the_evidence_where_the_covariance_is_nearly_singular(engine):
    """In float32, with heads so large that L cannot be inverted."""
    x = 10 * np.random.default_rng(0).standard_normal((20, 13))
    vae = sv.VAE(13, 20, (), "gaussian", engine=engine, posterior="full", seed=0)
    estimate, exact = (sv.log_evidence(vae, x, method, 500).log_evidence for method in ("importance", "exact"))
    assert (estimate < exact + 1).all()


@pytest.mark.parametrize("objective", [sv.IWAE(5), sv.ELBO(5, kl="monte-carlo")], ids=str)
def test_objectives_that_sample_log_q_do_not_divide_by_a_covariance_that_is_nearly_singular(engine, objective):
    """The gradient in float32 is that of float64: what q's exponent is, of q's own samples, needs no solving."""
    rng = np.random.default_rng(0)
    x, eps = 10 * rng.standard_normal((20, 13)), rng.standard_normal((20, 5, 20))
    gradients = {}
    for dtype in ("float64", "float32"):
        vae = sv.VAE(13, 20, (), "gaussian", dtype=dtype, engine=engine, posterior="full", seed=0)
        terms, gradients[dtype] = vae.value_and_grad(x.astype(dtype), eps.astype(dtype), objective)
        assert np.isfinite(terms.objective).all()
    assert min(np.linalg.svd(cholesky)[1].min() for cholesky in vae.encode(x.astype(dtype)).cholesky) < 1e-6
    for name, want in gradients["float64"].items():
        np.testing.assert_allclose(gradients["float32"][name], want, atol=1e-4 * np.abs(want).max(), rtol=0)


def test_annealing_may_start_at_a_full_posterior():
    model = linear_gaussian(orthogonal=False, rows=3, posterior="full")
    found = annealed_importance(model.vae, model.x, num_chains=4, num_temperatures=2, start="encoder")
    np.testing.assert_allclose(found.log_evidence, model.log_evidence, rtol=1e-10)


def test_quadrature_integrates_under_the_correlated_q():
    model = linear_gaussian(orthogonal=False, rows=2, posterior="full")
    off = random_weights(model.vae.with_parameters(model.vae.parameters.copy()), np.random.default_rng(0), 0.2)
    for name in ("decoder.head.weight", "decoder.head.bias"):
        off.parameters[name][...] = model.vae.parameters[name]
    found = integrate(off, model.x)
    head_noise = np.random.default_rng(1).normal(size=(2, 100_000, 3))
    terms, _ = off.value_and_grad(model.x, head_noise, sv.ELBO(100_000))
    assert found.converged.all()
    np.testing.assert_allclose(found.elbo, terms.elbo, atol=0.1)
    np.testing.assert_allclose(found.log_evidence - found.elbo, found.kl_to_posterior, atol=1e-8)
    assert (found.kl_to_posterior > 0.1).all()


def test_the_approximation_gap_of_the_full_family_is_zero_where_that_of_the_diagonal_one_is_not():
    """The encoders are off: what they lose is amortization. What the best q of each example loses is the family's."""
    gaps = {}
    for name in ("diagonal", "full"):
        model = linear_gaussian(orthogonal=False, rows=3, posterior=name)
        model.vae.parameters["encoder.head.bias"][:] += 0.3
        gaps[name] = inference_gap(model.vae, model.x, "exact", num_samples=512, num_steps=400)
    exact = LinearGaussian.from_vae(model.vae).gap
    np.testing.assert_allclose(gaps["diagonal"].approximation_gap, exact, atol=0.1)
    assert np.abs(gaps["full"].approximation_gap).max() < 0.03 < exact / 10
    assert (gaps["full"].amortization_gap > 0.05).all()
    assert isinstance(gaps["full"].best, sv.FullGaussian)


def test_what_is_for_a_diagonal_posterior_says_so():
    vae, x, _ = build(posterior="full")
    assert active_units(vae, x) == (vae.encode(x).mu.var(axis=0) > 0.01).sum()
    with pytest.raises(ValueError, match=r"ELBO surgery is for a diagonal posterior; got .*'full'"):
        elbo_surgery(vae, x)
    for export in (torch_state, encoder_onnx):
        with pytest.raises(ValueError, match="export is for a diagonal posterior"):
            export(vae)
    with pytest.raises(ValueError, match="expected a diagonal Gaussian"):
        LinearGaussian.from_vae(linear_gaussian().vae).elbo(np.zeros((3, 6)), vae.encode(x))
