"""The map from the paper leads to places that exist."""

import re


def test_every_file_and_function_exists(request):
    root = request.config.rootpath
    text = (root / "docs" / "paper_map.md").read_text()
    for path in re.findall(r"`((?:tests|experiments)/[\w/.]*)`", text):
        assert (root / path).exists(), path
    for path in re.findall(r"`((?:train|data|models)/\w+\.py)`", text):
        assert (root / "fisher_jax" / path).exists(), path
    for module, name in re.findall(
        r"`(curvature|penalties|baselines|measure)\.(\w+)", text
    ):
        imported = __import__(f"fisher_jax.{module}", fromlist=[name])
        assert callable(getattr(imported, name)), name
    for path, name in re.findall(r"`(\w+/\w+\.py)`: `(\w+)", text):
        folder = root if path.startswith("launch/") else root / "fisher_jax"
        assert f"def {name}(" in (folder / path).read_text(), name
