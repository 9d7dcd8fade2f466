"""The standard library as tokens: made once, split at its end, nothing lost."""

import numpy as np
import pytest
from tokenizers import Tokenizer

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.data import corpus, library_tokens


def test_the_library_is_tokenized_once(library, data_folder, monkeypatch):
    monkeypatch.setattr(corpus, "standard_library", lambda: library)
    data = library_tokens.stdlib_tokens(300, length=8, validation_fraction=0.1)
    (shard,) = data_folder.rglob("*.npy")
    ids = np.load(shard)
    found = Tokenizer.from_file(str(shard.with_name("tokenizer.json")))
    texts = [found.decode(part) for part in np.split(ids, np.flatnonzero(ids == 0) + 1)]
    contents = corpus.python_files(library)
    order = sorted(contents, key=corpus.rank)
    assert texts == [*(contents[path].decode(errors="replace") for path in order), ""]
    assert (data.vocabulary, data.unit) == (300, "token")
    assert 1 < data.bytes_per_unit < 8
    held = round(0.1 * len(ids))
    assert len(data.train["tokens"]) == (len(ids) - held - 1) // 8
    first = data.validation["tokens"][np.array([0])][0]
    np.testing.assert_array_equal(first, ids[len(ids) - held :][:9])
    # Asked again it is read, whatever the windows.
    monkeypatch.delattr(library_tokens, "tokenize")
    again = library_tokens.stdlib_tokens(300, length=16, validation_fraction=0.1)
    assert again.fingerprint == data.fingerprint
    assert not list(data_folder.rglob("*.jsonl"))


@pytest.mark.parametrize("size", [256, True, 300.0])
def test_a_vocabulary_that_is_none_is_refused(size):
    with pytest.raises(ConfigError, match=r"data\.vocabulary"):
        library_tokens.stdlib_tokens(size)
