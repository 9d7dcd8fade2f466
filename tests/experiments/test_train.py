"""Training from the command line: finished, interrupted, killed, refused."""

import json
import random
import re
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from gnomon.experiments.config import load, override
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.records.files import read_json, write_json
from gnomon.experiments.records.metrics import read_metrics
from gnomon.experiments.train import dry_run, load_state, train

pytestmark = pytest.mark.usefixtures("optax_promotion")


def state_of(workdir: Path) -> list[np.ndarray]:
    state = load_state(workdir)
    return jax.tree.leaves(state._replace(key=jax.random.key_data(state.key)))


def rows_of(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def assert_same_run(one: Path, other: Path) -> None:
    """Parameters, optimizer state, data position's effect, metrics: to the bit."""
    for a, b in zip(state_of(one), state_of(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert read_metrics(one) == read_metrics(other)
    results = [read_json(workdir / "result.json") for workdir in (one, other)]
    for result in results:
        result.pop("seconds")
    assert results[0] == results[1]


@pytest.fixture(scope="module")
def config(sweep_file):
    """The config file of a run long enough to be interrupted."""
    return str(sweep_file("[{}]", steps=240, checkpoint_every=20, log_every=4))


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory, optax_promotion):
    """The folder of the run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("whole")
    train(load(config), workdir)
    return workdir


def test_killed_anywhere_and_run_again_it_is_bit_equal(
    command, config, whole, tmp_path
):
    kills = random.Random(0)
    for _ in range(2):
        process = command("train", f"--config={config}", f"--workdir={tmp_path}")
        # Between rows, so the kill may fall on any step, save or evaluation.
        target = rows_of(tmp_path) + kills.randint(4, 20)
        while rows_of(tmp_path) < target and process.poll() is None:
            time.sleep(0.002)
        time.sleep(kills.random() * 0.02)
        process.kill()
        process.wait()
        if (tmp_path / "result.json").exists():
            break
    assert rows_of(tmp_path) > 0
    train(load(config), tmp_path)
    assert_same_run(whole, tmp_path)


def test_ctrl_c_saves_and_the_same_command_goes_on(command, config, whole, tmp_path):
    arguments = (f"--config={config}", f"--workdir={tmp_path}")
    process = command("train", *arguments)
    while rows_of(tmp_path) < 7 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130
    assert "run the same command again to go on" in output
    at = int(output.split("stopped at step ")[1].split()[0])
    assert load_state(tmp_path).step == at
    assert command("train", *arguments).wait() == 0
    assert_same_run(whole, tmp_path)


def test_a_run_leaves_all_that_it_promises(tiny, tmp_path, capsys):
    result = train(tiny(tensorboard=True), tmp_path)
    assert "embed/embedding" in capsys.readouterr().out
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {
        *("config", "run", "metrics", "result", "checkpoints", "events", "lock")
    }
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["units"] == 12 * 4 * 16
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert ["validation_loss" in row for row in rows] == [False, True, False, True]
    assert result["final"]["validation_loss"] == rows[-1]["validation_loss"]
    # A second call has nothing to do and says so.
    assert train(tiny(tensorboard=True), tmp_path) == result
    assert "is done" in capsys.readouterr().out


def test_a_dry_run_prints_what_a_sweeps_does_and_writes_nothing(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    table = dry_run(tiny(), peak=1e12)
    plan = r"adamw +1 +1 +[\d,]+ +\d\.\d\de\+\d\d +\d+ MiB +\d+s"
    needs = r"adamw +8\.0 B +\d+ MiB +\d+ MiB( +\d\.\de\+\d\d){3} +\d+\.\d%"
    assert re.search(plan, table)
    assert re.search(needs + r" +\d\.\de\+\d\d$", table)
    assert not list(tmp_path.iterdir())


def test_training_learns(tiny, tmp_path):
    """Bytes of Python are far from uniform: 5.5 nats at first, below 3.6 soon."""
    config = tiny(
        steps=150,
        batch=16,
        data={"name": "stdlib_text", "length": 16},
        evaluate__batches=16,
        optimizer__learning_rate=3e-2,
        log_every=50,
        checkpoint_every=150,
    )
    result = train(config, tmp_path)
    assert result["final"]["validation_loss"] < 3.6


@pytest.mark.parametrize("name", ["digits_mlp", "digits_resnet"])
def test_image_configs_train(name, tmp_path):
    """Statistics of batch normalization are part of the saved state."""
    changes = {"steps": 80, "model.width": 4} if "resnet" in name else {"steps": 30}
    config = override(load(f"{name}.py"), changes | {"tensorboard": False})
    result = train(config, tmp_path)
    assert result["final"]["validation_accuracy"] > 0.3
    assert bool(jax.tree.leaves(load_state(tmp_path).stats)) == ("resnet" in name)


def test_another_run_in_the_folder_is_refused_by_field(tiny, tmp_path):
    train(tiny(), tmp_path)
    with pytest.raises(ConfigError, match=r"config.model.width was 16 and is now 32"):
        train(tiny(model__width=32), tmp_path)
    with pytest.raises(ConfigError, match=r"config.optimizer.name was 'optax.adamw'"):
        train(tiny(optimizer={"name": "optax.sgd", "learning_rate": 1e-3}), tmp_path)
    write_json(tmp_path / "config.json", tiny(seed=1))
    with pytest.raises(ConfigError, match=r"config\.json is that of trial"):
        load_state(tmp_path)


def test_a_checkpoint_of_another_model_is_refused_by_path(tiny, tmp_path):
    """Even where nothing but the checkpoint is left to tell."""
    train(tiny(), tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "result.json").unlink()
    with pytest.raises(ValueError, match=r"params/blocks/0/attention.*f32\[1,16"):
        train(tiny(model__width=32), tmp_path)


def test_a_folder_in_use_is_refused(tiny, tmp_path):
    from gnomon.experiments.records.locks import lock

    with lock(tmp_path / "lock"), pytest.raises(ConfigError, match="in use by process"):
        train(tiny(), tmp_path)
