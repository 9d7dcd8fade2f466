"""Training on shards: losses in bits a byte, and vocabularies that fit."""

import json

import numpy as np
import pytest

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.data import load
from gnomon.experiments.records.files import read_json
from gnomon.experiments.train import train
from gnomon.experiments.trial.abstract import trace

pytestmark = pytest.mark.usefixtures("optax_promotion")
TOKENS = {"vocabulary": 257, "bytes_per_token": 2.5}


@pytest.fixture
def section(tmp_path):
    """Two shards of random tokens, of which meta.json says what they stand for."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        tokens = rng.integers(0, 257, 4000).astype(np.uint16)
        np.save(tmp_path / f"{name}.npy", tokens)
    (tmp_path / "meta.json").write_text(json.dumps(TOKENS))
    return {"name": "tokens", "path": str(tmp_path), "length": 16} | {
        "validation_shards": "b*"
    }


def test_a_run_reports_bits_a_byte(tiny, section, tmp_path):
    config = tiny(
        data=section,
        model__vocab=257,
        report__metric="validation_bits_per_byte",
    )
    train(config, tmp_path / "run")
    result = read_json(tmp_path / "run/result.json")
    final = result["final"]
    for split in ("train", "validation"):
        bits = final[f"{split}_bits"]
        assert bits == pytest.approx(final[f"{split}_loss"] / np.log(2), rel=1e-5)
        assert final[f"{split}_bits_per_byte"] == pytest.approx(bits / 2.5, rel=1e-6)
    assert result["unit"] == "token"
    assert result["units"] == 12 * 4 * 16
    assert result["data"] == {
        "name": "tokens",
        "fingerprint": load(section).fingerprint,
    }


def test_without_bytes_a_token_there_is_no_such_metric(tiny, section, tmp_path):
    (tmp_path / "meta.json").write_text(json.dumps({"vocabulary": 257}))
    config = tiny(data=section, model__vocab=257)
    assert "bits_per_byte" not in trace(config, load(section)).window
    config = tiny(
        data=section, model__vocab=257, report__metric="validation_bits_per_byte"
    )
    with pytest.raises(ConfigError, match="not recorded"):
        trace(config, load(section))


def test_a_model_with_a_smaller_vocabulary_is_refused(tiny, section):
    with pytest.raises(ConfigError, match=r"config.model.vocab=256: .* has 257 tokens"):
        trace(tiny(data=section), load(section))
