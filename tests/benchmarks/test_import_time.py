"""The benchmark of imports runs, and tells a statement that costs more."""

import json


def test_every_statement_has_a_row(script, tmp_path):
    path = tmp_path / "record.json"
    printed = script("import_time", "--repeats=1", f"--output={path}")
    rows = {row["statement"]: row for row in json.loads(path.read_text())["rows"]}
    assert rows["import optax"]["ratio"] == 1
    # Loads no jax.
    assert rows["import gnomon.optimizers"]["ratio"] < 0.5
    assert all(statement in printed for statement in rows)
