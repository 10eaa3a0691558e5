"""The run's page: whole, self-contained, for light and dark, and nothing from a user's file is taken for HTML."""

import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

import scratchvae as sv
from scratchvae.data import load
from scratchvae.evidence import LinearGaussian
from scratchvae.report import page, plots, tables
from scratchvae.report.explain.estimators import turned_components
from scratchvae.report.run_report import epochs_in_words, latent_caption, picture_of, run_report, traversals_caption
from scratchvae.report.summary import as_seen, elbo_terms, kept_epoch, spread_rows, summarise

VOID = {"meta", "link", "img", "source", "br"}


class Tags(HTMLParser):
    """Collects tags and text, and fails where a tag is not closed by its own end."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def model():
    return sv.VAE(16, 2, (8,), engine="reference")


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).random((40, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def summary(model, data):
    return summarise(model, data, "held-out", binarize="dynamic", num_samples=20, limit=30)


def test_a_summary_adds_up(summary):
    assert summary.examples == 30
    assert summary.examples_in_all == 40
    assert summary.elbo == pytest.approx(summary.reconstruction - summary.kl)
    assert summary.gap == pytest.approx(summary.log_evidence - summary.elbo)
    assert summary.gap > -3 * summary.sampling_error
    assert 0 < summary.sampling_error < summary.standard_error


def test_a_summary_is_of_the_estimates_of_the_rows_it_looked_at(model, data, summary):
    x = as_seen(model, data, spread_rows(40, 30), "dynamic", seed=0)
    reconstruction, kl = (term.mean() for term in elbo_terms(model, x, seed=0, num_samples=20))
    assert (summary.reconstruction, summary.kl) == pytest.approx((reconstruction, kl))
    found = sv.log_evidence(model, x, num_samples=20)
    assert summary.log_evidence == pytest.approx(found.log_evidence.mean())
    assert summary.standard_error == pytest.approx(found.log_evidence.std(ddof=1) / np.sqrt(30))
    assert summary.sampling_error == pytest.approx(np.linalg.norm(found.standard_error) / 30)
    assert summary.effective_sample_size == pytest.approx(np.median(found.effective_sample_size))
    assert summary.smallest_effective_sample_size == pytest.approx(np.min(found.effective_sample_size))


def test_bits_per_dimension_are_nats_over_dimensions_and_log_2(summary):
    nats = 16 * np.log(2)
    assert summary.bits_per_dimension * nats == pytest.approx(-summary.log_evidence)
    assert summary.elbo_bits_per_dimension * nats == pytest.approx(-summary.elbo)


def test_the_terms_of_the_elbo_do_not_depend_on_how_many_examples_are_decoded_together(model, data, monkeypatch):
    together = elbo_terms(model, data, seed=0, num_samples=5)
    monkeypatch.setattr("scratchvae.report.summary.BLOCK", 7 * 5 * 16)  # seven examples
    np.testing.assert_allclose(elbo_terms(model, data, seed=0, num_samples=5), together, rtol=1e-5)


def test_the_sampling_bias_is_how_far_the_estimate_is_low():
    """Against log p(x) in closed form: a linear-Gaussian model and a q wide enough for weights without heavy tails."""
    x = load("digits").train.astype(np.float64)
    vae = turned_components(x, 6, seed=0)
    vae.parameters["encoder.head.bias"][6:] += 1.0
    found = summarise(vae, x, "training", num_samples=30)
    miss = found.log_evidence - LinearGaussian.from_vae(vae).log_evidence(x).mean()
    assert miss < -4 * found.sampling_error, "low by more than chance"
    assert miss == pytest.approx(found.sampling_bias, abs=3 * found.sampling_error)
    assert summarise(vae, x[:9], "training", method="exact").sampling_bias == 0


def test_the_elbo_beside_an_integral_is_of_as_many_samples_however_many_are_asked_for():
    x = load("digits").train.astype(np.float64)[:5]
    vae = turned_components(x, 2, seed=0)
    one, many = (summarise(vae, x, "given", num_samples=count, method="exact") for count in (1, 5000))
    assert one.elbo == many.elbo


@pytest.mark.parametrize(("samples", "points"), [(10, "32 points"), (100, "96 points"), (5000, "4,992 points")])
def test_the_caption_of_annealing_counts_the_points_that_all_chains_pass(summary, samples, points):
    annealed = replace(summary, method="ais", num_samples=samples)
    assert f"annealing, {points} on the way of all chains together" in tables.caption([annealed])


def test_a_summary_is_the_same_for_the_same_seed_and_another_for_another(model, data, summary):
    assert summarise(model, data, "held-out", binarize="dynamic", num_samples=20, limit=30) == summary
    other = summarise(model, data, "held-out", binarize="dynamic", num_samples=20, limit=30, seed=1)
    assert other.log_evidence != summary.log_evidence


def test_another_seed_draws_other_z_for_the_elbo_too_and_the_pixels_have_a_seed_of_their_own(model, data, summary):
    other = summarise(model, data, "held-out", "dynamic", num_samples=20, limit=30, seed=1, pixel_seed=0)
    assert other.reconstruction != summary.reconstruction
    assert other.kl == summary.kl, "of the same pixels, and in closed form"


def test_a_dead_encoder_has_no_active_unit_and_no_kl(data):
    model = sv.VAE(16, 2, (8,), engine="reference")
    model.parameters["encoder.head.weight"][...] = 0
    summary = summarise(model, data, "held-out", binarize="threshold", num_samples=20)
    assert (summary.active_units, summary.kl) == (0, 0.0)
    assert summary.gap == pytest.approx(0.0, abs=0.5)


@pytest.mark.parametrize(("count", "limit", "wanted"), [(10, 0, 10), (10, 20, 10), (10, 4, 4), (7, 1, 1)])
def test_rows_are_spread_over_all_of_the_data_and_none_comes_twice(count, limit, wanted):
    rows = spread_rows(count, limit)
    assert len(set(rows)) == wanted
    assert 0 <= rows.min() <= rows.max() < count
    assert rows.max() - rows.min() >= count * (wanted - 1) // wanted


def test_the_table_has_a_unit_for_every_number_that_has_one(summary):
    _, rows = tables.cells({"held out": summary}, sampling=True)
    units = {row[0]: row[1] for row in rows}
    assert units["ELBO"] == units["gap"] == "nats per example"
    assert all(len(row) == 3 for row in rows)


def test_every_cell_of_the_table_is_the_number_its_row_is_named_after(summary):
    _, rows = tables.cells({"held out": replace(summary, active_units=1)}, sampling=True)
    cell = {(name, unit): value for name, unit, value in rows}
    for name in ("reconstruction", "KL", "ELBO"):
        assert cell[name, "nats per example"] == f"{getattr(summary, name.lower()):.3f}"
    assert cell["active units", "latent dimensions"] == "1 of 2"
    _, rows = tables.cells({"held out": replace(summary, active_units=0, examples=1)})
    assert {tuple(row[:2]): row[2] for row in rows}["active units", "latent dimensions"] == "-"
    assert cell["gap", "nats per example"] == f"{summary.gap:.3f}"
    assert cell["log p(x)", "nats per example"] == f"{summary.log_evidence:.3f} ± {summary.standard_error:.3f}"
    assert cell["log p(x)", "bits per dimension"] == f"{summary.bits_per_dimension:.4f}"
    assert cell["sampling error", "nats per example"] == f"{summary.sampling_error:.4f}"
    assert cell["effective samples", "median of examples"] == f"{summary.effective_sample_size:.1f} of 20"
    fewest = summary.smallest_effective_sample_size
    assert cell["effective samples", "fewest of an example"] == f"{fewest:.1f} of 20"
    assert fewest < summary.effective_sample_size


@pytest.mark.parametrize(
    ("method", "weighted"), [("importance", "7.0 of 20"), ("ais", "7.0 of 16 chains"), ("exact", "-")]
)
def test_effective_samples_are_of_what_is_weighted(summary, method, weighted):
    of = replace(summary, method=method, effective_sample_size=7.0, smallest_effective_sample_size=7.0)
    _, rows = tables.cells({"held out": of}, sampling=True)
    assert [row[-1] for row in rows[-2:]] == [weighted] * 2


def test_a_single_example_has_no_standard_error_in_the_table(summary):
    _, rows = tables.cells({"held out": replace(summary, examples=1, standard_error=float("nan"))})
    assert not [value for *_, value in rows if "nan" in value or "±" in value]


def test_the_caption_says_which_estimator_and_how_many_examples(summary):
    assert "30 of 40 held-out examples" in tables.caption([summary])
    training = replace(summary, part="training", examples=50, examples_in_all=50)
    assert "over all 50 training examples and 30 of 40 held-out examples." in tables.caption([training, summary])
    assert "20 samples" in tables.caption([summary])
    assert "closed form" in tables.caption([replace(summary, method="exact")])


def report_of(model, data, summary, labels=None, image_shape=(4, 4), **of_data):
    terms = {"elbo": -3.0, "reconstruction": -2.0, "kl": 1.0}
    config = {
        "format": 1,
        "data": {
            "name": "<script>alert(1)</script>",
            "examples": 1234,
            "image_shape": image_shape,
            "data_dir": None,
            **of_data,
        },
        "training": {"binarize": "dynamic", "learning_rate": 1e-3, "allow_grey": False, "patience": None},
    }
    history = [{"epoch": 1, "train": terms, "validation": terms}]
    return run_report(model, data, config, history, {"training": summary, "held out": summary}, 0, labels)


@pytest.fixture(scope="module")
def report(model, data, summary):
    return report_of(model, data, summary)


def test_the_page_is_whole_html_with_its_numbers_and_configuration(report, summary):
    tags = Tags()
    tags.feed(report.html)
    assert tags.open == []
    for words in (f"{summary.elbo:.3f}", "nats per example", "learning rate", "0.001", "held out"):
        assert words in tags.text
    assert "1 epoch on 1,234 training examples" in tags.text


@pytest.mark.parametrize(
    ("patience", "words"),
    [(None, "4 epochs"), (2, "4 epochs (the weights of epoch 2 are kept, the best on held-out data)"), (9, "4 epochs")],
)
def test_the_page_says_which_epochs_weights_are_kept(patience, words):
    elbos = [-3.0, -1.0, -1.0, -2.0] if patience == 2 else [-4.0, -3.0, -2.0, -1.0]
    history = [{"epoch": n, "validation": {"elbo": elbo}} for n, elbo in enumerate(elbos, 1)]
    assert epochs_in_words(history, {"training": {"patience": patience}}) == words
    assert kept_epoch([{}, {"validation": None}, {"validation": {"elbo": -5.0}}], patience=1) == 3


def test_the_configuration_is_written_in_words():
    values = {"hidden": [128, 64], "labels": None, "allow_grey": False, "learning_rate": 1e-3, "name": "<a>"}
    html = page.configuration_section({"format": 1, "some": values, "linear": {"hidden": [], "allow_grey": True}})
    assert re.findall("<h3>(.*?)</h3>", html) == ["Some", "Linear"]
    assert re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", html) == [
        ("hidden", "128, 64"), ("labels", "-"), ("allow grey", "no"), ("learning rate", "0.001"), ("name", "&lt;a&gt;"),
        ("hidden", "none"), ("allow grey", "yes"),
    ]  # fmt: skip


def test_the_page_asks_nothing_of_a_network(report):
    tags = Tags()
    tags.feed(report.html)
    links = [
        value for _, attributes in tags.seen for name, value in attributes.items() if name in ("src", "href", "srcset")
    ]
    assert links
    assert all(link.startswith("data:") for link in links)
    assert not re.search(r"@import|url\(", report.html)


def test_the_page_has_every_picture_for_light_and_for_dark_and_in_words(report):
    tags = Tags()
    tags.feed(report.html)
    images = [attributes for tag, attributes in tags.seen if tag == "img"]
    sources = [attributes for tag, attributes in tags.seen if tag == "source"]
    assert len(images) == len(sources) == 4
    assert all(image["alt"] for image in images)
    assert all("dark" in source["media"] for source in sources)
    assert "prefers-color-scheme: dark" in page.STYLE


def test_a_dark_page_shows_the_picture_that_was_drawn_for_it():
    tags = Tags()
    tags.feed(page.figure((b"light", b"dark"), "png", 'words with "quotes"', "a <i> b"))
    (source,), (image,) = ([found for tag, found in tags.seen if tag == name] for name in ("source", "img"))
    assert source["srcset"] == f"data:image/png;base64,{b64encode(b'dark').decode()}"
    assert image == {"src": f"data:image/png;base64,{b64encode(b'light').decode()}", "alt": 'words with "quotes"'}
    assert tags.text == "a <i> b"


def test_what_a_file_is_called_is_text_and_not_html(report):
    assert "<script>" not in report.html
    assert "&lt;script&gt;" in report.html


@pytest.mark.parametrize(("latent_dim", "plane"), [(1, False), (2, True), (3, True)])
def test_a_caption_names_a_plane_and_ellipses_where_they_are_drawn(latent_dim, plane):
    caption = latent_caption(latent_dim, 40, 40)
    assert caption.startswith("Of all 40 held-out examples")
    assert ("ellipses of 40" in caption) == ("The plane" in caption) == plane
    assert ("ellipses of 150." in latent_caption(latent_dim, 1000, 5000)) == plane
    assert "inactive" in caption
    one = latent_caption(latent_dim, 1, 1)
    assert one.startswith("Of the one held-out example")
    assert "inactive" not in one


@pytest.mark.parametrize(("latent_dim", "words"), [(1, 0), (2, 1), (10, 1), (20, 2)])
def test_a_caption_says_which_dimensions_move_where_others_stay(latent_dim, words):
    caption = traversals_caption(latent_dim)
    assert caption.count(".") == words
    assert ("The 10 of 20 latent dimensions" in caption) == (latent_dim == 20)


def test_the_pictures_are_a_png(report):
    assert report.pictures.startswith(b"\x89PNG")


def test_the_pictures_are_the_data_what_was_shown_of_them_its_reconstructions_and_means_of_samples(model, data):
    upper, lower = (axes.images[0].get_array() for axes in picture_of(model, data, (4, 4), "dynamic", seed=3).axes)
    rows = spread_rows(40, 24)
    shown = as_seen(model, data, rows, "dynamic", seed=3)
    for top, line in zip((0, 5, 10), (data[rows], shown, model.reconstruct(shown)), strict=True):
        np.testing.assert_allclose(upper[top : top + 4, :4].ravel(), line[0], rtol=1e-5)
    np.testing.assert_allclose(lower[:4, :4].ravel(), model.sample(48, seed=3, mean=True)[0], rtol=1e-5)


def test_points_of_a_plane_are_as_many_as_show_a_density():
    vae = sv.VAE(2, 3, (8,), "gaussian", engine="reference")
    points = np.random.default_rng(0).normal(size=(600, 2)).astype(np.float32)
    upper, lower = picture_of(vae, points, None, "none", seed=0).axes
    assert [len(drawn.get_offsets()) for axes in (upper, lower) for drawn in axes.collections] == [500, 500, 500]


@pytest.fixture
def drawn(monkeypatch):
    """The figures of a report for light and dark pages, which are drawn and not written."""
    figures = []
    monkeypatch.setattr(plots, "figure_bytes", lambda figure, *_, **__: b"")
    monkeypatch.setattr(plots, "light_and_dark", lambda draw, kind="svg": (figures.append(draw()), (b"", b""))[1])
    return figures


@pytest.mark.parametrize(
    ("data_dim", "image_shape", "latent_dim", "title"),
    [
        (16, (4, 4), 2, "Manifold"),
        (2, None, 2, "Manifold"),
        (5, None, 2, "Traversals"),
        (16, (4, 4), 1, "Traversals"),
        (16, (4, 4), 3, "Traversals"),
    ],
)
def test_what_z_means_is_a_plane_of_it_or_one_dimension_at_a_time(
    summary, drawn, data_dim, image_shape, latent_dim, title
):
    vae = sv.VAE(data_dim, latent_dim, (8,), engine="reference")
    held_out = np.random.default_rng(0).random((5, data_dim)).astype(np.float32)
    html = report_of(vae, held_out, summary, image_shape=image_shape).html
    assert drawn[-1].axes[0].get_title().startswith(title)
    assert ("While one moves" in html) == (title == "Traversals" and latent_dim > 1)


def test_the_pictures_of_a_table_name_its_columns(summary, drawn, monkeypatch):
    vae, names = sv.VAE(5, 2, (8,), engine="reference"), ["age", "weight", "height", "pulse", "sleep"]
    held_out = np.random.default_rng(0).random((5, 5)).astype(np.float32)
    monkeypatch.setattr(plots, "figure_bytes", lambda figure, *_, **__: drawn.append(figure) or b"")
    report_of(vae, held_out, summary, image_shape=None, columns=names)
    named = [[tick.get_text() for tick in axes.get_xticklabels()] for figure in drawn for axes in figure.axes]
    assert named.count(names) == 2 * 2 + 1  # data and samples, for light pages and dark, and traversals


@pytest.mark.parametrize(
    ("points", "values", "shown"), [(8, 4000, "8 of 40"), (50, 160, "10 of 40"), (50, 15, "1 of 40")]
)
def test_of_so_many_or_such_wide_data_a_few_are_in_the_latent_picture_and_the_caption_says_so(
    model, data, summary, drawn, monkeypatch, points, values, shown
):
    monkeypatch.setattr("scratchvae.report.run_report.LATENT_POINTS", points)
    monkeypatch.setattr("scratchvae.report.run_report.LATENT_VALUES", values)
    ellipses = shown.split()[0]
    assert f"Of {shown} held-out examples, ellipses of {ellipses}." in report_of(model, data, summary).html


def test_every_example_of_the_latent_picture_keeps_its_own_label(model, data, summary, monkeypatch):
    drawn = []

    def keep(vae, x, labels):
        drawn.append((x, labels))
        return Figure()

    monkeypatch.setattr("scratchvae.report.run_report.LATENT_POINTS", 8)
    monkeypatch.setattr("scratchvae.report.run_report.latent_picture", keep)
    report_of(model, data, summary, labels=np.arange(40))
    x, labels = drawn[0]
    assert len(x) == 8
    np.testing.assert_array_equal(x, as_seen(model, data, labels, "dynamic", seed=0))
