import pytest


@pytest.fixture
def plain_figures(monkeypatch):
    """No figures of single images, which take longer to draw than the tests' fits."""
    from ssdnet_jax.figures import heatmap

    def write(path, **_):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    monkeypatch.setattr(heatmap, "write_heatmap_figure", write)
    monkeypatch.setattr(heatmap, "heatmap_figure", lambda **_: None)
