import pytest
import torch
from skimage.metrics import structural_similarity

from convvae.images.ssim import ssim


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(4, 3, 17, 23, generator=generator)
    y = (x + 0.3 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    return x, y


def reference(x, y):
    return structural_similarity(
        x.double().numpy(),
        y.double().numpy(),
        data_range=1.0,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )


def test_it_is_that_of_scikit_image(pairs):
    x, y = pairs
    expected = [reference(*pair) for pair in zip(x, y, strict=True)]
    assert ssim(x, y).tolist() == pytest.approx(expected, abs=1e-12)
    assert len(set(expected)) == 4


def test_it_is_that_of_scikit_image_where_the_window_just_fits(pairs):
    x, y = (images[:, :, :11, 3:14].contiguous() for images in pairs)
    assert ssim(x, y)[0].item() == pytest.approx(reference(x[0], y[0]), abs=1e-12)


def test_equal_images_have_one_and_the_order_does_not_matter(pairs):
    x, y = pairs
    torch.testing.assert_close(ssim(x, x), torch.ones(4, dtype=torch.double))
    torch.testing.assert_close(ssim(x, y), ssim(y, x))
    assert (ssim(x, y) < 0.95).all()
    assert (ssim(x, 1 - x) < 0).all()


@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.2, 0.7)])
def test_constant_images_differ_by_their_mean_alone(a, b):
    x, y = torch.full((2, 1, 12, 12), a), torch.full((2, 1, 12, 12), b)
    a, b = x[0, 0, 0, 0].item(), y[0, 0, 0, 0].item()
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    assert ssim(x, y).tolist() == pytest.approx([expected] * 2, abs=1e-13)


def test_an_image_scores_the_same_alone(pairs):
    x, y = pairs
    assert ssim(x[1:2], y[1:2]).item() == pytest.approx(ssim(x, y)[1].item(), abs=1e-14)
