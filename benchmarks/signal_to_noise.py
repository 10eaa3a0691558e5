"""`python -m benchmarks.signal_to_noise`: do more samples help? A published table of gradients' signal-to-noise ratios.

The linear-Gaussian toy of Rainforth et al. 2018: z ~ N(mu, I), x|z ~ N(z, I), q(z|x) = N(A x + b, 2/3 I) near its
optimum, D = 20. The ratio of a parameter is |mean| / standard deviation of its gradient estimate over draws of the
noise, for one example x; a table's entry is the mean over parameters. In theory it grows as sqrt(K) for the decoder
(mu), falls as 1/sqrt(K) for the encoder (A, b) under IWAE, and grows as sqrt(K), in the end, under DReG.

As a model of this project: z' = z - mu has the prior N(0, I), and mu is the bias of a decoder that adds it. All
entries A_ij of a row have the ratio of b_i, for their gradients are x_j times its own: the table needs b alone.

Which x and which offset from the optimum the table had is not known. Both enter as scales only: the decoder's mean
gradient is proportional to x - mu, the encoder's to the offset of q's mean from the posterior's. So x - mu is drawn and
scaled to give the table's decoder ratio at K = 1, the offset its IWAE ratio at K = 1, by the closed forms below; the
other thirteen entries are then predictions. The encoder's come out within 3 %, the decoder's up to 8 % lower.

The mean of IWAE's encoder gradient is too small to be seen in its own noise. DReG's has the same mean, and far less
noise: the mean is taken from there, and IWAE's own must agree with it within its standard errors.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import scratchvae as sv
from benchmarks.machine import warn_if_busy
from benchmarks.measure import round_to
from benchmarks.report import bar, plot_beside, say, show_bars, show_table, write_json
from scratchvae.objectives import Objective
from scratchvae.reference.random import Stream, normals

DIM = 20
SAMPLES = (1, 4, 16, 64, 256)
VARIANCE = 2 / 3  # of q; that of the posterior is 1/2
PUBLISHED = {  # Rainforth et al. 2018 and Tucker et al. 2018 have the setting and the slopes
    "decoder": (0.632, 1.226, 2.469, 4.938, 9.842),
    "encoder, IWAE": (0.0593, 0.0322, 0.0166, 0.00835, 0.00418),
    "encoder, DReG": (0.237, 0.254, 0.372, 0.672, 1.301),
}
SLOPES = {"decoder": 0.5, "encoder, IWAE": -0.5, "encoder, DReG": 0.5}  # of log ratio against log K
SET = {("decoder", 1), ("encoder, IWAE", 1)}  # entries that set the scales
BLOCK_NUMBERS = 1 << 20  # latent numbers drawn together; results do not depend on it
SLOPE_TOLERANCE = 0.1  # relative
STANDARD_ERRORS = 3.0
QUICKER = 16  # times fewer draws
LEAST_DRAWS = 1000  # with one sample; with 256 they are 15


class Ratios(NamedTuple):
    """Signal-to-noise ratios with K samples, means over parameters, and how far IWAE's mean is from DReG's."""

    decoder: float
    iwae: float
    dreg: float
    deviation: float  # along the offset, in standard errors of the paired difference


class Moments:
    """Sums of vectors that come in blocks, for their means and variances."""

    def __init__(self) -> None:
        self.count, self.total, self.square = 0, 0.0, 0.0

    def add(self, values: NDArray) -> None:
        """Take in another block (n, P)."""
        self.count += len(values)
        self.total = self.total + values.sum(axis=0)
        self.square = self.square + np.square(values).sum(axis=0)

    @property
    def mean(self) -> NDArray:
        return np.asarray(self.total / self.count)

    @property
    def deviation(self) -> NDArray:
        """Standard deviation of one vector's entries."""
        return np.sqrt(np.asarray(self.square / self.count) - np.square(self.mean))


class Toy(NamedTuple):
    vae: sv.VAE
    x: NDArray  # (D,): the example
    offset: NDArray  # (D,): of q's mean from the posterior's


def toy(seed: int) -> Toy:
    """The model with its offset encoder, and the example.

    At K = 1 the gradients for mu and b are (x - mu) / 2 - (z - m) and -2 (z - m), m the posterior's mean, z - m the
    offset plus noise of standard deviation s = sqrt(2/3). So the ratios are |x - mu| / 2 s and |offset| / s, if the
    offset has no part along the signs of x - mu: one more thing that is not known, worth some per cent of the decoder's
    """
    draws = normals(seed, Stream.PIXELS, 0, np.arange(3), DIM).astype(np.float64)
    mu = draws[0]
    deviation = np.sqrt(VARIANCE)
    from_mu = draws[1] * (2 * deviation * PUBLISHED["decoder"][0] / np.abs(draws[1]).mean())
    across = draws[2] - np.sign(from_mu) * (np.sign(from_mu) * draws[2]).mean()  # leaves mean |from_mu + offset| alone
    offset = across * (deviation * PUBLISHED["encoder, IWAE"][0] / np.abs(across).mean())
    vae = sv.VAE(DIM, DIM, (), "gaussian", "identity", "float64", "reference")
    vae.parameters["encoder.head.weight"][...] = np.concatenate([np.eye(DIM) / 2, np.zeros((DIM, DIM))], axis=1)
    vae.parameters["encoder.head.bias"][:] = np.concatenate([offset - mu / 2, np.full(DIM, np.log(VARIANCE))])
    vae.parameters["decoder.head.weight"][...] = np.eye(DIM)
    vae.parameters["decoder.head.bias"][:] = mu
    return Toy(vae, mu + from_mu, offset)


def gradients(vae: sv.VAE, x: NDArray, eps: NDArray, objective: Objective) -> tuple[NDArray, NDArray]:
    """Gradients of one example's objective for mu and b, each (n, D): a row for each draw of the noise (n, K, D)."""
    rows, samples, _ = eps.shape
    _, deltas = vae.terms_and_deltas(np.repeat(x[None], rows, axis=0), eps, objective)
    of_output, of_head = (deltas.networks[name].das[-1] for name in ("decoder", "encoder"))  # of loss = -mean over rows
    return -rows * of_output.reshape(rows, samples, DIM).sum(axis=1), -rows * of_head[:, :DIM]


def blocks(draws: int, samples: int, seed: int) -> Iterator[NDArray]:
    """The noise of all draws, (n, K, D) at a time."""
    size = max(1, BLOCK_NUMBERS // (samples * DIM))
    for start in range(0, draws, size):
        rows = np.arange(start, min(start + size, draws))
        yield normals(seed, Stream.POSTERIOR, samples, rows, samples * DIM).reshape(-1, samples, DIM).astype(np.float64)


def ratios(toy: Toy, samples: int, draws: int, seed: int) -> Ratios:
    """The three ratios with K samples."""
    decoder, iwae, dreg, difference = Moments(), Moments(), Moments(), Moments()
    for eps in blocks(draws, samples, seed):
        of_mu, of_b = gradients(toy.vae, toy.x, eps, sv.IWAE(samples))
        _, doubly = gradients(toy.vae, toy.x, eps, sv.DReG(samples))
        paired = (of_b - doubly) @ toy.offset
        for moments, values in ((decoder, of_mu), (iwae, of_b), (dreg, doubly), (difference, paired[:, None])):
            moments.add(values)
    signal = np.abs(dreg.mean)
    error = difference.deviation[0] / np.sqrt(draws)
    return Ratios(
        decoder=float((np.abs(decoder.mean) / decoder.deviation).mean()),
        iwae=float((signal / iwae.deviation).mean()),
        dreg=float((signal / dreg.deviation).mean()),
        deviation=float(abs(difference.mean[0]) / error),
    )


def draws_for(samples: int, draws: int) -> int:
    """Fewer where a draw costs more and the ratio that sets the error, DReG's, is larger."""
    return max(draws // samples, draws // 64)


def measure(samples: tuple[int, ...], draws: int, seed: int) -> list[dict]:
    """One row for each number of samples and each ratio, beside the published one."""
    model, rows = toy(seed), []
    for count in samples:
        found = ratios(model, count, draws_for(count, draws), seed)
        for name, value in zip(PUBLISHED, found[:3], strict=True):
            published = PUBLISHED[name][SAMPLES.index(count)]
            rows.append(
                {
                    "gradient": name,
                    "samples": count,
                    "draws": draws_for(count, draws),
                    "ratio": round_to(value, 4),
                    "published": published,
                    "ours_over_published": round_to(value / published, 4),
                    "sets_a_scale": (name, count) in SET,
                    "deviation": round_to(found.deviation, 3),
                }
            )
        say(
            f"K = {count}: {draws_for(count, draws):,} draws, IWAE's mean within {found.deviation:.1f} errors of DReG's"
        )
    return rows


def slope(rows: list[dict], name: str, column: str = "ratio") -> float:
    """d log ratio / d log K: of all K by least squares; of DReG, whose law holds in the end, of the last two."""
    mine = [row for row in rows if row["gradient"] == name]
    mine = mine[-2:] if name == "encoder, DReG" else mine
    logs = np.log([[row["samples"], row[column]] for row in mine])
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def bars(rows: list[dict]) -> list[dict]:
    """How far the slopes are from their laws, and the two means from each other."""
    found = []
    for name, law in SLOPES.items():
        ours, published = slope(rows, name), slope(rows, name, "published")
        title = f"{name}: slope {ours:.3f} (published {published:.3f}) from {law}, relative"
        found.append(bar(title, SLOPE_TOLERANCE, abs(ours / law - 1), at_most=True))
    deviation = max(row["deviation"] for row in rows)
    found.append(bar("IWAE's mean gradient from DReG's, standard errors", STANDARD_ERRORS, deviation, at_most=True))
    return found


def show(rows: list[dict]) -> None:
    samples = list(dict.fromkeys(row["samples"] for row in rows))
    lines = []
    for name in PUBLISHED:
        mine = [row for row in rows if row["gradient"] == name]
        starred = [f"{row['ratio']:.4g}{'*' if row['sets_a_scale'] else ''}" for row in mine]
        lines.append([name, "ours", *starred])
        lines.append(["", "published", *(f"{row['published']:.4g}" for row in mine)])
    show_table("signal-to-noise ratio of gradients", ["gradient", "", *(f"K = {k}" for k in samples)], lines)
    say("* sets the scale of x - mu, or of the offset from the optimum, which are not published")


def plot(rows: list[dict], path: str) -> None:
    """Each ratio against K, both on logarithmic scales: ours as lines, the published ones as dots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 4))
    for name in PUBLISHED:
        mine = [row for row in rows if row["gradient"] == name]
        samples = [row["samples"] for row in mine]
        (line,) = axes.loglog(samples, [row["ratio"] for row in mine], label=name)
        axes.loglog(samples, [row["published"] for row in mine], "o", color=line.get_color(), markersize=4)
    axes.set_xlabel("samples K (dots: published)")
    axes.set_ylabel("|mean| / standard deviation of the gradient")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(plot_beside(path), dpi=150)
    pyplot.close(figure)
    say(f"wrote {plot_beside(path)}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.signal_to_noise", description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the result here too, and a plot beside it")
    parser.add_argument("--draws", type=int, default=1_000_000, help="of one gradient with one sample; fewer with more")
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the draws")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    fewer = QUICKER if options.quick else 1
    if options.draws < LEAST_DRAWS * fewer:
        parser.error(f"--draws is {options.draws}; expected at least {LEAST_DRAWS * fewer}")
    if not 0 <= options.seed < 2**64:
        parser.error(f"--seed is {options.seed}; expected 0 to 2^64 - 1")
    options.draws //= fewer
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    warn_if_busy(say)
    rows = measure(SAMPLES, options.draws, options.seed)
    verdicts = bars(rows)
    show(rows)
    show_bars(verdicts)
    if options.json:
        settings = {"dimensions": DIM, "draws": options.draws, "seed": options.seed}
        write_json(options.json, "signal_to_noise", settings, rows, verdicts)
        plot(rows, options.json)
    return 0 if all(line["met"] for line in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
