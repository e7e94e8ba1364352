"""scikit-learn's own checks of an estimator."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from convvae.estimator import ConvVAE


@parametrize_with_checks([ConvVAE(latent_dims=2, max_filters=8, epochs=2, device="cpu")])
def test_the_checks_of_scikit_learn(estimator, check, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # else one of them is skipped
    check(estimator)
