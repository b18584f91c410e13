"""Means from a stream against those of everything at once."""

import numpy as np
import pytest

from ovsam_cli.evaluation.bootstrap import estimate_mean
from ovsam_cli.evaluation.streamed_means import StreamedMeans


def test_close_to_the_plain_bootstrap() -> None:
    """300 images of 1 to 8 objects that fail together."""
    rng = np.random.default_rng(1)
    values, images = [], []
    streamed = StreamedMeans()
    for image in range(300):
        quality = rng.uniform()
        found = (0.7 * quality + 0.3 * rng.random(int(rng.integers(1, 9)))).tolist()
        values += found
        images += [image] * len(found)
        streamed.add_image(("all", one) for one in found)
    wanted = estimate_mean(np.asarray(values, np.float32), np.asarray(images))
    found_mean = streamed.estimate()["all"]
    assert found_mean.num_instances == len(values)
    assert found_mean.mean == pytest.approx(wanted.mean, abs=1e-6)
    assert found_mean.low == pytest.approx(wanted.low, abs=0.006)
    assert found_mean.high == pytest.approx(wanted.high, abs=0.006)


@pytest.mark.parametrize("values", [[0.25], [1.0], [0.0, 1.0, 0.5]])
def test_one_image_has_no_interval(values: list[float]) -> None:
    """It used to be as narrow as could be: low and high were the mean."""
    streamed = StreamedMeans()
    streamed.add_image(("all", value) for value in values)
    streamed.add_image([("another", 1.0)])
    found = streamed.estimate()["all"]
    assert found.mean == pytest.approx(np.mean(values))
    assert np.isnan([found.low, found.high]).all()
    assert found.num_instances == len(values)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_or_all_wrong(value: float) -> None:
    """Wilson's interval for 0 of 12 images ends at 24.25 %; objects are not the trials."""
    streamed = StreamedMeans()
    for _ in range(12):
        streamed.add_image([("all", value)] * 5)
    found = streamed.estimate()["all"]
    assert (found.mean, found.num_instances) == (value, 60)
    wanted = (0.0, 0.24250) if value == 0 else (0.75750, 1.0)
    assert (found.low, found.high) == pytest.approx(wanted, abs=1e-5)


def test_series_of_one_image_share_its_draws() -> None:
    streamed = StreamedMeans()
    for value in (0.0, 1.0, 0.5):
        streamed.add_image([("a", value), ("b", value + 2)])
    found = streamed.estimate()
    assert found["b"].low == pytest.approx(found["a"].low + 2)
