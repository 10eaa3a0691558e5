"""Two stochastic layers: densities and gradients against torch, exact answers where there are some, training, files."""

import copy
import math
import pickle

import numpy as np
import pytest

import scratchvae as sv
from scratchvae import hierarchical
from scratchvae.evidence import active_units, active_units_by_layer, bidirectional, elbo_surgery, inference_gap
from scratchvae.gradcheck import GATES
from scratchvae.hierarchical import HierarchicalVAE
from scratchvae.training import Trainer
from tests.cases import Case, random_data, random_weights

OBJECTIVES = (sv.ELBO(3), sv.IWAE(3))


def build(
    likelihood="bernoulli", activation="tanh", dtype="float64", engine="reference", hidden=((4,), (3, 5)), rows=3
):
    """x in 6 dimensions, z1 in 3, z2 in 2; three samples."""
    rng = np.random.default_rng(1)
    vae = random_weights(HierarchicalVAE(6, (3, 2), hidden, likelihood, activation, dtype, engine), rng)
    return Case(vae, random_data(vae, rng, rows), rng.normal(size=(rows, 3, 5)))


def linear_gaussian(engine="reference") -> tuple[HierarchicalVAE, np.ndarray, np.ndarray]:
    """z1|z2 ~ N(A^T z2 + a, S), x|z1 ~ N(W^T z1 + b, I): the model, its mean of x and its covariance of x."""
    vae = build("gaussian", "identity", engine=engine, hidden=((), ())).vae
    vae.parameters["decoder.1.head.weight"][...] *= 0.5
    prior, bias = vae.parameters["decoder.2.head.weight"], vae.parameters["decoder.2.head.bias"]
    prior[:, 3:] = 0  # the variances of z1 do not depend on z2
    a, mean, w = prior[:, :3], bias[:3], vae.parameters["decoder.1.head.weight"]
    covariance = w.T @ (a.T @ a + np.diag(np.exp(bias[3:]))) @ w + np.eye(6)
    return vae, mean @ w + vae.parameters["decoder.1.head.bias"], covariance


# --- names, shapes, settings ----------------------------------------------------------------------------------------


def test_parameters_have_the_names_and_shapes_that_others_rely_on():
    vae = HierarchicalVAE(7, (4, 2), ((6, 5), (3, 8)), engine="reference")
    assert {name: array.shape for name, array in vae.parameters.items() if name.endswith("weight")} == {
        "encoder.1.0.weight": (7, 6),
        "encoder.1.1.weight": (6, 5),
        "encoder.1.head.weight": (5, 8),
        "encoder.2.0.weight": (4, 3),
        "encoder.2.1.weight": (3, 8),
        "encoder.2.head.weight": (8, 4),
        "decoder.2.0.weight": (2, 8),
        "decoder.2.1.weight": (8, 3),
        "decoder.2.head.weight": (3, 8),
        "decoder.1.0.weight": (4, 5),
        "decoder.1.1.weight": (5, 6),
        "decoder.1.head.weight": (6, 7),
    }


def test_a_model_says_what_it_is_and_what_is_not_said_is_as_in_the_paper():
    text = "HierarchicalVAE(784 - 200 - 200 - 100 - 100 - 100 - 50, tanh, bernoulli, float32, reference)"
    assert repr(HierarchicalVAE(784, engine="reference")) == text


def test_the_configuration_builds_the_untrained_model_again():
    told = {
        "data_dim": 6, "latent_dims": [3, 2], "hidden": [[5], [4, 3]], "likelihood": "gaussian", "activation": "relu",
        "dtype": "float64", "seed": 9,
    }  # fmt: skip
    vae = HierarchicalVAE(**told, engine="reference")
    assert vae.config == told
    np.testing.assert_array_equal(
        HierarchicalVAE(**vae.config, engine="reference").parameters.flat, vae.parameters.flat
    )


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
@pytest.mark.parametrize(
    ("likelihood", "activation"),
    [("bernoulli", "tanh"), ("gaussian-learned-diagonal", "softplus"), ("poisson", "relu"), ("categorical", "tanh")],
)
def test_every_gradient_is_right_to_twelve_digits(likelihood, activation, objective):
    case = build(likelihood, activation)
    table = sv.check_gradients(*case, objective, "complex")
    assert len(table) == len(case.vae.parameters)
    assert all(row.error <= GATES["complex"] == 1e-12 for row in table), str(table)


def test_gradients_of_the_compiled_engine_are_central_differences():
    for objective in OBJECTIVES:
        table = sv.check_gradients(*build(engine="compiled"), objective, "central")
        assert table.passed, str(table)


def test_a_gradient_that_forgets_a_use_of_z1_is_caught(monkeypatch):
    true = hierarchical.density_backward

    def forgets(*arguments):
        dz, dinputs, deltas = true(*arguments)
        return 0 * dz, dinputs, deltas

    monkeypatch.setattr(hierarchical, "density_backward", forgets)
    assert not sv.check_gradients(*build(), sv.ELBO(3), "complex").passed


def test_both_engines_compute_the_same_numbers():
    x, eps = build()[1:]
    for objective in OBJECTIVES:
        results = [build(engine=engine).vae.value_and_grad(x, eps, objective) for engine in ("reference", "compiled")]
        for one, other in zip(results[0][0], results[1][0], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)
        np.testing.assert_allclose(results[0][1].flat, results[1][1].flat, rtol=1e-10, atol=1e-14)


def test_terms_and_gradients_are_torchs(engine):
    torch = pytest.importorskip("torch", reason="torch, of the extra bench, is not installed")
    vae, x, eps = build(engine=engine)
    for objective in OBJECTIVES:
        got, gradients = vae.value_and_grad(x, eps, objective)
        weights = {name: torch.tensor(array, requires_grad=True) for name, array in vae.parameters.items()}
        log_weights, reconstruction = torch_log_weights(torch, weights, torch.tensor(x), torch.tensor(eps))
        value = log_weights.mean(dim=1)
        if objective.name == "iwae":
            value = torch.logsumexp(log_weights, dim=1) - math.log(3)
        want = log_weights.mean(dim=1), reconstruction, reconstruction - log_weights.mean(dim=1), value
        for name, mine, theirs in zip(got._fields, got, want, strict=True):
            np.testing.assert_allclose(mine, theirs.detach(), rtol=1e-11, atol=1e-12, err_msg=name)
        (-value.mean()).backward()
        for name, gradient in gradients.items():
            theirs = weights[name].grad.numpy()
            assert np.linalg.norm(gradient - theirs) <= 1e-10 * np.linalg.norm(theirs) > 0, name


def torch_log_weights(torch, weights, x, eps):
    """log w (B, K) and the mean of log p(x|z1), by torch.distributions, all samples at once."""

    def network(prefix, h):
        stems = [
            name.removesuffix(".weight") for name in weights if name.startswith(prefix) and name.endswith("weight")
        ]
        for stem in stems:
            h = h @ weights[f"{stem}.weight"] + weights[f"{stem}.bias"]
            h = h if stem.endswith("head") else torch.tanh(h)
        return h

    def normal(prefix, h):
        mu, logvar = network(prefix, h).chunk(2, dim=-1)
        return torch.distributions.Normal(mu, torch.exp(logvar / 2))

    q1 = normal("encoder.1.", x[:, None].expand(-1, eps.shape[1], -1))
    z1 = q1.loc + q1.scale * eps[..., :3]
    q2 = normal("encoder.2.", z1)
    z2 = q2.loc + q2.scale * eps[..., 3:]
    p1, p2 = normal("decoder.2.", z2), torch.distributions.Normal(torch.zeros_like(z2), 1.0)
    likelihood = torch.distributions.Bernoulli(logits=network("decoder.1.", z1)).log_prob(x[:, None]).sum(-1)
    ratio = sum(q.log_prob(z).sum(-1) for q, z in ((q1, z1), (q2, z2)))
    ratio = ratio - sum(p.log_prob(z).sum(-1) for p, z in ((p1, z1), (p2, z2)))
    return likelihood - ratio, likelihood.mean(dim=1)


# --- meaning --------------------------------------------------------------------------------------------------------


def test_terms_are_those_of_the_log_weights(engine):
    vae, x, eps = build(engine=engine)
    log_weights = vae.log_weights(x, vae.encoder_head(x), eps)
    terms, _ = vae.value_and_grad(x, eps, sv.IWAE(3))
    np.testing.assert_allclose(terms.elbo, log_weights.mean(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(terms.elbo, terms.reconstruction - terms.kl)
    np.testing.assert_allclose(terms.objective, np.log(np.exp(log_weights).mean(axis=1)), rtol=1e-12)
    assert (terms.objective > terms.elbo).all()
    np.testing.assert_array_equal(vae.elbo(x, eps).elbo, terms.elbo)


def test_a_row_does_not_depend_on_its_neighbours(engine):
    vae, x, eps = build(engine=engine)
    whole, alone = vae.elbo(x, eps), vae.elbo(x[1:2], eps[1:2])
    if engine == "compiled":
        np.testing.assert_array_equal(whole.elbo[1:2], alone.elbo)
    else:  # NumPy's matrix library has other kernels for a single row
        np.testing.assert_allclose(whole.elbo[1:2], alone.elbo, rtol=1e-13)


def test_log_evidence_is_exact_log_p_where_that_is_known(engine):
    vae, mean, covariance = linear_gaussian(engine)
    x = np.random.default_rng(3).multivariate_normal(mean, covariance, size=4)
    deviation = x - mean
    distance = (deviation * np.linalg.solve(covariance, deviation.T).T).sum(axis=1)
    exact = -0.5 * (6 * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + distance)
    for name in ("encoder.1.head.weight", "encoder.1.head.bias", "encoder.2.head.weight", "encoder.2.head.bias"):
        vae.parameters[name][...] *= 0.1  # q close to N(0, I) reaches all of the posterior
    for method in ("importance", "prior"):
        found = sv.log_evidence(vae, x, method, 20_000)
        assert (abs(found.log_evidence - exact) < 5 * found.standard_error).all(), method
        assert (found.standard_error < 0.1).all(), method


def test_samples_have_the_mean_and_covariance_of_the_model(engine):
    vae, mean, covariance = linear_gaussian(engine)
    x, count = vae.sample(20_000, seed=2), 20_000
    error = np.sqrt(np.diag(covariance) / count)
    assert (abs(x.mean(axis=0) - mean) < 5 * error).all()
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert (abs(np.cov(x.T) - covariance) < 7 * scale / np.sqrt(count)).all()
    np.testing.assert_array_equal(vae.sample(5, seed=2), x[:5])


def test_the_joint_density_is_the_product_of_its_three_factors(engine):
    vae, x, eps = build(engine=engine)
    head = vae.networks["decoder.2"]
    hidden = np.tanh(np.tanh(eps[..., 3:] @ head.layers[0].weight + head.layers[0].bias) @ head.layers[1].weight
                     + head.layers[1].bias)  # fmt: skip
    mu, logvar = np.split(hidden @ head.layers[2].weight + head.layers[2].bias, 2, axis=-1)
    log_prior_1 = -0.5 * (np.log(2 * np.pi) + logvar + (eps[..., :3] - mu) ** 2 / np.exp(logvar)).sum(axis=-1)
    log_prior_2 = -0.5 * (np.log(2 * np.pi) + eps[..., 3:] ** 2).sum(axis=-1)
    p = vae.decode(eps[..., :3])
    likelihood = (x[:, None] * np.log(p) + (1 - x[:, None]) * np.log1p(-p)).sum(axis=-1)
    np.testing.assert_allclose(vae.log_joint(x, eps), likelihood + log_prior_1 + log_prior_2, rtol=1e-11)
    np.testing.assert_array_equal(vae.log_joint(x, eps[:, 0]), vae.log_joint(x, eps[:, :1])[:, 0])


def test_wherever_z1_comes_from_counts_the_encoder_sees_their_logarithms():
    vae, x, eps = build("poisson")
    hidden, head = vae.networks["encoder.1"].layers
    mu1 = (np.tanh(np.log1p(x) @ hidden.weight + hidden.bias) @ head.weight + head.bias)[:, :3]
    np.testing.assert_allclose(vae.encode(x).mu, mu1, rtol=1e-12)
    np.testing.assert_allclose(vae.latents(x, 0 * eps[:, :1])[0][:, 0], mu1, rtol=1e-12)
    np.testing.assert_allclose(vae.mean_variances(x)[0], mu1.var(axis=0), rtol=1e-11)


def test_active_units_are_counted_in_each_layer(engine):
    vae, x, _ = build(engine=engine, hidden=((), ()), activation="identity", rows=400)
    encoder, second = vae.parameters["encoder.1.head.weight"], vae.parameters["encoder.2.head.weight"]
    encoder[:, 0] = 0  # mu1 of the first unit says nothing about x
    second[...] = 0
    second[1, 1] = 0.5  # mu2 of the second unit follows the second unit of z1
    vae.parameters["encoder.1.head.bias"][3:] = 4.0  # wide: by itself the noise of z1 would make mu2 vary
    near, far = vae.mean_variances(x)
    mu1 = vae.encode(x).mu
    np.testing.assert_allclose(near, mu1.var(axis=0), rtol=1e-6, atol=1e-12)
    exact = 0.25 * mu1[:, 1].var()
    noise = 0.25 * np.exp(vae.encode(x).logvar[:, 1]).mean() / 50
    assert abs(far[0]) < 1e-20
    assert abs(far[1] - exact) < 0.4 * noise
    assert active_units_by_layer(vae, x) == (2, 1)
    assert active_units(vae, x) == 3


def test_the_variance_of_the_second_mean_depends_on_the_seed_and_not_on_how_many_rows_are_worked_on(monkeypatch):
    vae, x, _ = build(rows=7)
    whole = vae.mean_variances(x, seed=1)
    first, second = vae.mean_variances(x)[1], vae.mean_variances(x, seed=0)[1]
    np.testing.assert_array_equal(first, second)
    assert (first != whole[1]).all()
    for rows in (1, 3):
        monkeypatch.setattr(hierarchical, "BLOCK_ROWS", rows)
        for got, want in zip(vae.mean_variances(x, seed=1), whole, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-10)


@pytest.mark.slow
def test_the_variance_of_the_second_mean_is_unbiased_however_few_the_examples_and_samples():
    vae, x, _ = build(hidden=((), ()), activation="identity", rows=3)
    vae.parameters["encoder.1.head.bias"][3:] = 2.0
    linear = vae.parameters["encoder.2.head.weight"][:, :2], vae.parameters["encoder.2.head.bias"][:2]
    for rows in (1, 2, 3):
        exact = (vae.encode(x[:rows]).mu @ linear[0] + linear[1]).var(axis=0)
        draws = np.array([vae.mean_variances(x[:rows], num_samples=2, seed=seed)[1] for seed in range(2000)])
        error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
        assert (np.abs(draws.mean(axis=0) - exact) < 5 * error + 1e-12).all()


# --- training and files ---------------------------------------------------------------------------------------------


def test_training_raises_the_bound(engine):
    vae, x, _ = build(engine=engine, dtype="float32", rows=60)
    history = sv.fit(vae, x, epochs=40, batch_size=20, learning_rate=0.02, validation=x, progress=False)
    assert np.mean(history["elbo"][-5:]) > history["elbo"][0] + 0.5
    assert history["validation.elbo"][-1] > history["validation.elbo"][0]
    assert all(row["train"]["elbo"] == row["train"]["reconstruction"] - row["train"]["kl"] for row in history.epochs)


def test_an_untrained_model_starts_from_the_training_mean():
    vae = HierarchicalVAE(6, (3, 2), ((4,), (3,)), engine="reference")
    x = (np.random.default_rng(0).random((50, 6)) < 0.3).astype(np.float32)
    sv.fit(vae, x, epochs=1, learning_rate=1e-12, progress=False)
    mean = x.mean(axis=0)
    np.testing.assert_allclose(vae.parameters["decoder.1.head.bias"], np.log(mean / (1 - mean)), rtol=1e-5)


def test_a_step_of_the_trainer_is_adams_first_step_on_the_gradient(engine):
    vae, x, _ = build(engine=engine)
    before, trainer = vae.parameters.copy(), Trainer(vae, x, 0.01, sv.IWAE(3), "none")
    _, gradients = vae.value_and_grad(x, trainer._noise(np.arange(3), 3, 1), sv.IWAE(3))
    trainer.step(np.arange(3))
    for name, gradient in gradients.items():
        np.testing.assert_allclose(before[name] - vae.parameters[name], 0.01 * np.sign(gradient), rtol=1e-4)


def test_a_model_comes_back_as_it_was(engine, tmp_path):
    vae, x, eps = build("gaussian-learned", engine=engine)
    path = tmp_path / "model.safetensors"
    vae.save(path)
    for other in (
        HierarchicalVAE.load(path, engine=engine), sv.VAE.load(path, engine=engine), copy.deepcopy(vae),
        pickle.loads(pickle.dumps(vae)),
    ):  # fmt: skip
        assert type(other) is HierarchicalVAE
        assert other.config == vae.config
        np.testing.assert_array_equal(other.elbo(x, eps).elbo, vae.elbo(x, eps).elbo)
    sv.VAE(6, 2, (3,), engine=engine).save(path)
    with pytest.raises(ValueError, match=r"holds VAE\(6 - 3 - 2.*expected a HierarchicalVAE"):
        HierarchicalVAE.load(path)


def test_resuming_gives_the_bits_of_the_run_that_was_not_stopped(engine, tmp_path):
    path, settings = tmp_path / "run.safetensors", {"batch_size": 2, "progress": False, "objective": sv.IWAE(3)}
    whole, halves = (build(engine=engine, dtype="float32") for _ in range(2))
    sv.fit(whole.vae, whole.x, epochs=4, **settings)
    sv.fit(halves.vae, halves.x, epochs=2, checkpoint=path, **settings)
    again = build(engine=engine, dtype="float32").vae
    sv.fit(again, halves.x, epochs=4, resume=path, **settings)
    np.testing.assert_array_equal(again.parameters.flat, whole.vae.parameters.flat)


@pytest.mark.parametrize("objective", [sv.STL(), sv.ELBO(beta=0.5), sv.ELBO(warm_up=3)], ids=str)
def test_an_objective_that_needs_more_than_log_weights_is_refused_before_anything_is_done(objective):
    vae = HierarchicalVAE(6, (3, 2), ((4,), (3,)), engine="reference")
    before = vae.parameters.copy()
    with pytest.raises(ValueError, match=r"needs log q itself|treats the KL by itself"):
        sv.fit(vae, np.eye(6), epochs=1, objective=objective, progress=False)
    np.testing.assert_array_equal(vae.parameters.flat, before.flat)


@pytest.mark.parametrize(
    ("parameter", "value", "ask", "name"),
    [
        ("encoder.1", np.nan, lambda vae, x, z: vae.encode(x), r"parameter encoder\.1\.head\.bias"),
        ("encoder.2", np.nan, lambda vae, x, z: active_units(vae, x), r"parameter encoder\.2\.head\.bias"),
        ("decoder.2", np.nan, lambda vae, x, z: vae.log_joint(x, z), r"parameter decoder\.2\.head\.bias"),
        ("encoder.1", 1e4, lambda vae, x, z: active_units(vae, x), r"E\[z2\|x\]"),
        ("decoder.2", -1e4, lambda vae, x, z: vae.log_joint(x, z), "log_joint"),
        ("decoder.2", 1e4, lambda vae, x, z: vae.sample(3), "z"),
    ],
)
def test_the_first_array_that_is_not_finite_is_named_and_no_warning_given(engine, parameter, value, ask, name):
    vae, x, eps = build(engine=engine, dtype="float32")
    vae.parameters[f"{parameter}.head.bias"][:] = value
    with pytest.raises(sv.NotFiniteError, match=f"^{name} is not finite"):
        ask(vae, x, eps)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda vae, x, eps: vae.value_and_grad(x, eps, sv.ELBO(3, beta=0.5)), "beta"),
        (lambda vae, x, eps: sv.check_gradients(vae, x, eps, sv.STL(3)), "needs log q itself"),
        (lambda vae, x, eps: vae.value_and_grad(x, eps, sv.ELBO(3, free_bits=0.1)), "treats the KL by itself"),
        (lambda vae, x, eps: vae.elbo(x, eps[..., :3]), r"expected real numbers of shape \(3, 5\)"),
        (lambda vae, x, eps: vae.decode(eps), r"expected real numbers of shape \(\.\.\., 3\)"),
        (lambda vae, x, eps: sv.log_evidence(vae, x, "ais", num_samples=10), "has two stochastic layers"),
        (lambda vae, x, eps: sv.log_evidence(vae, x, "exact"), "has two stochastic layers"),
        (lambda vae, x, eps: bidirectional(vae, 2), "has two stochastic layers"),
        (lambda vae, x, eps: sv.log_evidence(vae, x, "quadrature"), "latent_dim is 5; quadrature is for at most 3"),
        (lambda vae, x, eps: sv.log_evidence(vae, x, head=vae.encoder_head(x)), "has two stochastic layers"),
        (lambda vae, x, eps: inference_gap(vae, x, method="importance", num_samples=5), "has two stochastic layers"),
        (lambda vae, x, eps: elbo_surgery(vae, x), "has two stochastic layers"),
        (lambda vae, x, eps: vae.mean_variances(x, num_samples=1), "num_samples is 1; expected at least 2"),
        (lambda vae, x, eps: vae.mean_variances(x, num_samples=2.5), "num_samples is 2.5; expected a whole number"),
        (lambda vae, x, eps: vae.mean_variances(x[:0]), "empty"),
        (lambda *_: HierarchicalVAE(6, (3,)), r"latent_dims is \(3,\); expected an entry for each of the 2"),
        (lambda *_: HierarchicalVAE(6, 3), "latent_dims is 3; expected an entry"),
        (lambda *_: HierarchicalVAE(6, (3, 0)), "a latent size is 0"),
        (lambda *_: HierarchicalVAE(6, (3, 2), (4, 4)), r"hidden is \(4, 4\); expected sizes for each layer"),
        (lambda *_: HierarchicalVAE(6, (3, 2), ((4,), (-4,))), "a hidden size is -4"),
    ],
)
def test_what_two_layers_cannot_do_is_refused_in_one_line(ask, message):
    with pytest.raises(ValueError, match=message) as refusal:
        ask(*build())
    assert "\n" not in str(refusal.value)
