"""What is known about the importance-weighted gradient: more samples help the decoder and drown the encoder.

Rainforth et al. 2018, theorem 1, and Tucker et al. 2018, on the model of `benchmarks.signal_to_noise`.
"""

import json

import numpy as np
import pytest

from benchmarks import signal_to_noise


def test_the_toy_is_the_published_one_near_its_optimum():
    """q's mean is the posterior's plus the offset, and the closed forms give the first entries of the table."""
    toy = signal_to_noise.toy(0)
    mu, variance = toy.vae.parameters["decoder.head.bias"], np.exp(toy.vae.encode(toy.x[None]).logvar)
    np.testing.assert_allclose(variance, 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(toy.vae.encode(toy.x[None]).mu[0], (toy.x - mu) / 2 + toy.offset, rtol=1e-6, atol=1e-9)
    assert np.abs(toy.x - mu).mean() / (2 * np.sqrt(2 / 3)) == pytest.approx(0.632)
    assert np.abs(toy.offset).mean() / np.sqrt(2 / 3) == pytest.approx(0.0593)


def test_the_first_entries_are_their_closed_forms():
    found = signal_to_noise.ratios(signal_to_noise.toy(0), 1, 40_000, 0)
    assert found.decoder == pytest.approx(0.632, rel=0.02)
    assert found.iwae == pytest.approx(0.0593, rel=0.05)
    assert found.dreg == pytest.approx(2 * 0.0593 * np.sqrt(2 / 3) / abs(np.sqrt(3 / 2) - 2 * np.sqrt(2 / 3)), rel=0.05)


def test_the_two_means_are_apart_by_one_standard_error_in_the_root_mean_square():
    toy = signal_to_noise.toy(0)
    deviations = [signal_to_noise.ratios(toy, 4, 200, seed).deviation for seed in range(20)]
    assert 0.7 < np.sqrt(np.mean(np.square(deviations))) < 1.3


def test_a_slope_is_of_all_samples_but_dregs_of_the_last_two():
    def rows(gradient, *ratios):
        samples = signal_to_noise.SAMPLES
        return [{"gradient": gradient, "samples": k, "ratio": r} for k, r in zip(samples, ratios, strict=True)]

    bent, straight = (1, 1, 1, 1, 4), (1, 1 / 4, 1 / 16, 1 / 64, 1 / 256)
    both = rows("decoder", *bent) + rows("encoder, DReG", *bent)
    assert signal_to_noise.slope(both, "encoder, DReG") == pytest.approx(1)
    assert signal_to_noise.slope(both, "decoder") == pytest.approx(0.2)
    assert signal_to_noise.slope(rows("decoder", *straight), "decoder") == pytest.approx(-1)


@pytest.mark.parametrize(("draws", "more", "least"), [("999", [], 1000), ("15999", ["--quick"], 16000)])
def test_so_few_draws_that_none_may_be_left_for_many_samples_are_refused(draws, more, least, capsys):
    with pytest.raises(SystemExit):
        signal_to_noise.main(["--draws", draws, *more])
    assert f"--draws is {draws}; expected at least {least}" in capsys.readouterr().err


def test_more_samples_have_fewer_draws_down_to_a_sixty_fourth():
    found = [signal_to_noise.draws_for(k, 64_000) for k in (1, 4, 16, 64, 256)]
    assert found == [64_000, 16_000, 4_000, 1_000, 1_000]


@pytest.mark.slow
def test_every_slope_is_within_a_tenth_of_its_law_and_the_two_means_agree(tmp_path):
    """sqrt(K) for the decoder, 1/sqrt(K) for the encoder under IWAE, in the end sqrt(K) under DReG."""
    assert signal_to_noise.main(["--quick", "--json", str(tmp_path / "table.json")]) == 0
    assert (tmp_path / "table.png").stat().st_size > 10_000
    document = json.loads((tmp_path / "table.json").read_text())
    assert document["settings"]["draws"] == document["rows"][0]["draws"] == 1_000_000 // 16
    assert [line["met"] for line in document["bars"]] == [True] * 4
    for row in document["rows"]:
        tolerance = 0.11 if row["gradient"] == "decoder" else 0.06
        assert row["ours_over_published"] == pytest.approx(1, abs=tolerance), row
