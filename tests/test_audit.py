"""The numbers of the audit, against the losses written out as people write them."""

import itertools
import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

import scratchvae as sv
from scratchvae.audit import PRESETS, Recipe, audit
from scratchvae.cli import main
from scratchvae.evidence import LinearGaussian
from scratchvae.reference.gaussian import LOG_2_PI
from scratchvae.reference.random import Stream, normals, uniforms

DATA_DIM, LATENT_DIM, BATCH = 6, 2, 5


def small(recipe, **changes):
    """The same recipe on data small enough for finite differences."""
    weight = DATA_DIM if recipe.reconstruction_weight == recipe.data_dim else recipe.reconstruction_weight
    fields = {name: getattr(recipe, name) for name in Recipe.__dataclass_fields__} | {
        "data_dim": DATA_DIM,
        "latent_dim": LATENT_DIM,
        "batch_size": BATCH,
        "reconstruction_weight": weight,
        "grey": False,
    }
    return Recipe(**(fields | changes))


def written_loss(recipe, vae, x, eps):
    """The loss as the recipe's code computes it, from nothing but encoder and decoder outputs."""
    mu, logvar = vae.encode(x)
    xhat = vae.decode(mu + np.exp(logvar / 2) * eps)
    cross_entropy = recipe.error == "cross-entropy"
    error = -(x * np.log(xhat) + (1 - x) * np.log(1 - xhat)) if cross_entropy else (x - xhat) ** 2
    kl = -0.5 * (1 + logvar - mu**2 - np.exp(logvar))
    reduce = {"sum": np.sum, "mean": np.mean}
    error = reduce[recipe.batch](reduce[recipe.pixels](error, axis=1))
    kl = reduce[recipe.kl_batch](reduce[recipe.latents](kl, axis=1))
    return recipe.reconstruction_weight * error + recipe.kl_weight * kl


def problem(recipe, variance=None):
    """A model with random weights, data and noise; with a variance, a Gaussian decoder that has it."""
    likelihood = "bernoulli" if recipe.error == "cross-entropy" else "gaussian"
    if variance is not None:
        likelihood = "gaussian-learned"
    vae = sv.VAE(DATA_DIM, LATENT_DIM, (4,), likelihood, "tanh", "float64", "reference", seed=3)
    if variance is not None:
        vae.parameters["likelihood.logvar"][...] = math.log(variance)
    rows = np.arange(BATCH)
    x = uniforms(1, Stream.PIXELS, 0, rows, DATA_DIM).astype(float)
    x = np.round(x) if recipe.error == "cross-entropy" else x
    return vae, x, normals(1, Stream.POSTERIOR, 0, rows, LATENT_DIM).astype(float)


def slope(recipe, vae, x, eps, direction, step=1e-5):
    """Derivative of the written loss along a direction of all weights, by central differences."""
    values = []
    for sign in (1, -1):
        moved = vae.parameters.copy()
        moved.flat[:] += sign * step * direction.flat
        values.append(written_loss(recipe, vae.with_parameters(moved), x, eps))
    return (values[0] - values[1]) / (2 * step)


def directions(vae, count=4):
    for number in range(count):
        direction = vae.parameters.zeros_like()
        for name, array in direction.items():
            if not name.startswith("likelihood"):
                array[...] = normals(number, Stream.WEIGHTS, len(name), [array.size], array.size).reshape(array.shape)
        yield direction


ALL_REDUCTIONS = [
    Recipe(error, 784, 20, 100, pixels, batch, latents, kl_batch, 1.0, 0.3)
    for error in ("squared", "cross-entropy")
    for pixels, batch, latents, kl_batch in itertools.product(("sum", "mean"), repeat=4)
]


@pytest.mark.parametrize("recipe", [*PRESETS.values(), *ALL_REDUCTIONS], ids=[*PRESETS, *map(str, range(32))])
def test_a_recipes_gradient_is_that_of_the_elbo_with_the_implied_beta(recipe):
    recipe = small(recipe)
    found = audit(recipe)
    vae, x, eps = problem(recipe)
    _, gradient = vae.value_and_grad(x, eps, sv.ELBO(beta=found.beta))
    likelihood_scale = found.error_scale * (1 if recipe.error == "cross-entropy" else 2)
    for direction in directions(vae):
        written = slope(recipe, vae, x, eps, direction)
        implied = found.factor * likelihood_scale * float(gradient.flat @ direction.flat)
        assert written == pytest.approx(implied, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", [name for name, recipe in PRESETS.items() if recipe.error == "squared"])
def test_a_squared_error_is_the_elbo_of_a_decoder_with_the_implied_variance(name):
    recipe = small(PRESETS[name])
    found = audit(recipe)
    vae, x, eps = problem(recipe, found.variance)
    terms, gradient = vae.value_and_grad(x, eps)
    assert found.bound(written_loss(recipe, vae, x, eps)) == pytest.approx(terms.elbo.mean(), rel=1e-12)
    for direction in directions(vae):
        written = slope(recipe, vae, x, eps, direction)
        assert written == pytest.approx(found.scale * float(gradient.flat @ direction.flat), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", [name for name, recipe in PRESETS.items() if recipe.error == "cross-entropy"])
def test_a_cross_entropy_of_binary_pixels_is_the_elbo_less_what_the_kl_counts_too_often(name):
    recipe = small(PRESETS[name])
    found = audit(recipe)
    vae, x, eps = problem(recipe)
    terms = vae.elbo(x, eps)
    want = (terms.reconstruction - found.beta * terms.kl).mean()
    assert found.beta >= 1
    assert found.bound(written_loss(recipe, vae, x, eps)) == pytest.approx(want, rel=1e-12)


def test_another_beta_is_noticed():
    recipe = small(PRESETS["mse-mean"])
    vae, x, eps = problem(recipe)
    _, gradient = vae.value_and_grad(x, eps, sv.ELBO(beta=1.01 * audit(recipe).beta))
    direction = next(directions(vae))
    written, wrong = slope(recipe, vae, x, eps, direction), 2 / DATA_DIM * float(gradient.flat @ direction.flat)
    assert written != pytest.approx(wrong, rel=1e-4)


def test_known_recipes_have_the_numbers_worked_out_by_hand():
    numbers = {name: (audit(recipe).beta, audit(recipe).variance) for name, recipe in PRESETS.items()}
    assert numbers["elbo-bernoulli"] == (1, None)
    assert numbers["textbook-gaussian"] == (1, 1)
    assert numbers["pytorch-example"] == (1, None)
    assert numbers["keras-cross-entropy"] == (1, None)
    assert numbers["mse-sum"] == (0.5, 0.5)
    assert numbers["mse-mean"] == pytest.approx((392, 392))  # 784 / 2
    assert numbers["mse-mean-kl-mean"] == pytest.approx((19.6, 19.6))  # 784 / (2 * 20)
    assert numbers["mse-mean-kl-sum"] == pytest.approx((39200, 39200))  # 100 * 784 / 2
    assert numbers["bce-mean-kl-mean"] == (pytest.approx(39.2), None)  # 784 / 20
    assert numbers["pytorch-vae"] == pytest.approx((1.536, 1.536))  # 0.00025 * 12288 / 2
    assert numbers["lightning-bolts"] == pytest.approx((0.6, 0.6))  # 0.1 / 256 * 3072 / 2
    assert numbers["beta-vae"] == (4, None)


def test_what_is_a_bound_and_what_is_not():
    assert audit(PRESETS["elbo-bernoulli"]).is_elbo
    assert audit(PRESETS["textbook-gaussian"]).is_elbo
    assert audit(PRESETS["beta-vae"]).is_bound
    assert not audit(PRESETS["beta-vae"]).is_elbo
    assert not audit(PRESETS["pytorch-example"]).is_bound, "grey pixels"
    assert not audit(Recipe("cross-entropy", grey=False, kl_weight=0.5)).is_bound, "beta below 1"
    assert not audit(Recipe(kl_weight=0)).is_bound, "an autoencoder"
    assert not audit(PRESETS["pytorch-example"]).is_elbo
    assert not audit(Recipe(kl_weight=0)).is_elbo
    with pytest.raises(ValueError, match="no bound"):
        audit(PRESETS["pytorch-example"]).bound(100.0)
    for loss in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=f"loss is {loss}; expected a finite number"):
            audit(PRESETS["beta-vae"]).bound(loss)


def test_a_weight_typed_in_to_a_few_digits_is_the_one_that_is_meant():
    typed = Recipe("cross-entropy", pixels="mean", grey=False, kl_weight=0.00127551020408)  # 1 / 784
    assert audit(typed).beta != 1
    assert audit(typed).is_elbo


@pytest.mark.parametrize("recipe", [PRESETS["beta-vae"], Recipe(pixels="mean", batch="sum", kl_weight=0.3)])
def test_everything_by_name_is_what_the_name_says(recipe):
    found = audit(recipe)
    everything = found.as_dict()
    assert everything.pop("recipe") == asdict(recipe)
    assert everything == {name: getattr(found, name) for name in everything}


def test_sizes_may_be_numpys_numbers():
    recipe = Recipe(data_dim=np.int64(64), kl_weight=np.float32(2), batch_size=np.int32(8))
    assert recipe == Recipe(data_dim=64, kl_weight=2.0, batch_size=8)
    json.dumps(audit(recipe).as_dict())


def test_a_weight_that_is_the_number_of_pixels_follows_them(capsys):
    assert main(["audit", "keras-mse", "--data-dim", "3072", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["variance"] == audit(PRESETS["keras-mse"]).variance == 0.5
    assert main(["audit", "keras-mse", "--data-dim", "3072", "--reconstruction-weight", "784", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["variance"] == pytest.approx(3072 / 784 / 2)


def test_a_rescaled_squared_error_stays_below_the_exact_log_evidence():
    recipe = small(PRESETS["keras-mse"])
    found = audit(recipe)
    vae = sv.VAE(DATA_DIM, LATENT_DIM, (), "gaussian-learned", dtype="float64", engine="reference", seed=5)
    vae.parameters["likelihood.logvar"][...] = math.log(found.variance)
    _, x, _ = problem(recipe)
    exact = LinearGaussian.from_vae(vae).log_evidence(x).mean()
    losses = [
        written_loss(recipe, vae, x, normals(seed, Stream.POSTERIOR, 0, np.arange(BATCH), LATENT_DIM).astype(float))
        for seed in range(400)
    ]
    bounds = np.array([found.bound(loss) for loss in losses])
    assert bounds.mean() < exact - 3 * bounds.std() / 20
    assert -np.mean(losses) > exact - DATA_DIM * LOG_2_PI, "the printed number is on another scale"


def test_cross_entropy_of_grey_pixels_integrates_to_at_most_a_half():
    x, width = (np.arange(2000) + 0.5) / 2000, 1 / 2000
    for p in (0.01, 0.3, 0.5, 0.9):
        assert (np.exp(x * np.log(p) + (1 - x) * np.log(1 - p)) * width).sum() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"error": "l1"}, "squared"),
        ({"pixels": "max"}, "sum or mean"),
        ({"data_dim": 0}, "data_dim is 0; expected a whole number from 1"),
        ({"data_dim": 10**400}, r"data_dim is 10+\.\.\.0+; expected"),
        ({"latent_dim": True}, "latent_dim is True; expected a whole number from 1"),
        ({"batch_size": 2**53 + 1}, "batch_size is 9007199254740993"),
        ({"kl_weight": -1.0}, "kl_weight is -1.0; expected 0, or a number from"),
        ({"kl_weight": math.nan}, "kl_weight is nan"),
        ({"kl_weight": math.inf}, "kl_weight is inf"),
        ({"kl_weight": "4"}, "kl_weight is '4'"),
        ({"kl_weight": True}, "kl_weight is True"),
        ({"kl_weight": 10**400}, "kl_weight is 10"),
        ({"reconstruction_weight": 5e-324}, "reconstruction_weight is 5e-324; expected a number"),
        ({"reconstruction_weight": 0.0}, "no decoder"),
        ({"grey": "no"}, "grey is 'no'; expected True or False"),
    ],
)
def test_a_bad_recipe_is_refused_in_words(change, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**change)


def test_the_ends_of_all_ranges_give_finite_numbers():
    ends = itertools.product((1, 2**53), (1, 2**53), (1, 2**53), (1e-100, 1e100), (0, 1e-100, 1e100))
    for sizes_and_weights in ends:
        names = "data_dim", "latent_dim", "batch_size", "reconstruction_weight", "kl_weight"
        for recipe in ALL_REDUCTIONS:
            found = audit(replace(recipe, **dict(zip(names, sizes_and_weights, strict=True))))
            numbers = {name: value for name, value in found.as_dict().items() if isinstance(value, float)}
            assert all(map(math.isfinite, numbers.values())), numbers
            assert found.error_scale > 0
            assert (found.kl_scale > 0) == (found.beta > 0) == (found.recipe.kl_weight > 0)


def test_every_verdict_and_remark_is_a_sentence():
    for recipe in (*PRESETS.values(), *ALL_REDUCTIONS, Recipe(kl_weight=0), Recipe("cross-entropy", kl_weight=0)):
        found = audit(recipe)
        assert found.verdict.endswith(".")
        assert found.remark.endswith(".")


@pytest.mark.parametrize(
    ("recipe", "verdict", "remark"),
    [
        (PRESETS["mse-mean"], "constant: -loss - 3061.18 is the ELBO", "explain less variance than 392 collapse"),
        (Recipe(kl_weight=1e-3), "constant: -loss / 0.001 + 2259.11 is the ELBO", "of standard deviation 0.0224."),
        (Recipe(kl_weight=0.2), "constant: -loss / 0.2 + 182.", "of standard deviation 0.316."),
        (Recipe(kl_weight=0.3), "constant: -loss / 0.3 + ", "of standard deviation 0.387: strong for"),
        (Recipe(kl_weight=0), "No bound: without a KL term", "no noise at all"),
        (PRESETS["beta-vae"], "looser one: -loss = ELBO - 3 KL,", "The KL counts 4 times: fewer active units"),
        (
            Recipe("cross-entropy", grey=False, kl_weight=0.4),
            "No: -loss = ELBO + 0.6 KL",
            "0.4 times, so q(z|x) may leave",
        ),
        (PRESETS["bce-mean-kl-mean"], "at least D log 2 = 543.4 nats", "The KL counts 39.2 times: fewer active units"),
    ],
)
def test_the_words_have_the_numbers_and_the_direction_of_the_recipe(recipe, verdict, remark):
    found = audit(recipe)
    assert verdict in found.verdict
    assert remark in found.remark


def test_the_command_prints_every_recipe(capsys):
    assert main(["audit"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in PRESETS)


def test_the_command_answers_for_one_loss(capsys):
    options = "--error squared --pixels mean --kl-weight 0.00025 --data-dim 12288 --json"
    assert main(["audit", *options.split()]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["variance"] == pytest.approx(1.536)
    assert found["is_bound"] is True
    assert "1.536" in err


def test_every_option_changes_its_own_part_of_a_recipe(capsys):
    options = (
        "--error cross-entropy --pixels mean --batch sum --latents mean --kl-batch mean --reconstruction-weight 2 "
        "--kl-weight 3 --data-dim 11 --latent-dim 5 --batch-size 7 --binary --json"
    )
    assert main(["audit", *options.split()]) == 0
    recipe = Recipe("cross-entropy", 11, 5, 7, "mean", "sum", "mean", "mean", 2.0, 3.0, grey=False)
    assert json.loads(capsys.readouterr().out) == {"command": "audit", "preset": None} | audit(recipe).as_dict()


def test_what_is_said_of_the_batch_is_said_of_both_terms(capsys):
    assert main(["audit", "--batch", "sum", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == asdict(Recipe(batch="sum", kl_batch="sum"))


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("elbo-bernoulli", "the ELBO"),
        ("textbook-gaussian", "ELBO + constant"),
        ("mse-mean-kl-sum", "up to constants"),
        ("beta-vae", "a looser one"),
        ("pytorch-example", "no: grey"),
    ],
)
def test_the_command_says_of_every_recipe_whether_it_is_a_bound(capsys, monkeypatch, name, verdict):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["audit"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if f" {name} " in f" {line}"]
    assert f" {verdict} " in f"{row} "


def test_the_table_of_one_loss_has_its_variance_and_its_square_root(capsys):
    assert main(["audit", "pytorch-vae"]) == 0
    out = capsys.readouterr().out
    found = {
        cells[1].strip(): cells[2].strip() for cells in (line.split("│") for line in out.splitlines()) if cells[1:]
    }
    assert (found["implied variance"], found["standard deviation"]) == ("1.536", "1.239")
    assert found["implied beta"] == "1.536  (at unit variance)"


def test_options_change_a_recipe(capsys):
    assert main(["audit", "pytorch-example", "--binary", "--kl-weight", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["beta"], found["is_bound"], found["is_elbo"]) == (2.0, True, False)


@pytest.mark.parametrize("arguments", [["nonsense"], ["--pixels", "max"], ["--kl-weight", "-1"]])
def test_bad_input_is_one_line_and_status_2(arguments, capsys):
    assert main(["audit", *arguments]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
