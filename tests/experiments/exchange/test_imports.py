"""What wandb exports and what TensorBoard keeps become runs as any table does."""

import numpy as np
import pytest
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.proto.tensor_pb2 import TensorProto

from gnomon.experiments.exchange.from_tensorboard import _scalar
from gnomon.experiments.exchange.table import load_table
from gnomon.experiments.records.metrics import MetricsWriter

RUNS = """"Name","State","Runtime","Sweep","_step","lr","optimizer","eval/loss"
"fun-1","finished","12","s","100","0.1","adamw","2.5"
"fun-1","crashed","3","s","20","0.2","adamw","4.5"
"fun-2","finished","12","s","100","0.1","muon","NaN"
"""
PANEL = """"Step","a - b - loss","a - b - loss__MIN","c - loss","c - _step"
"0","3","3","4","0"
"5","","","3.5","5"
"10","2","2","","10"
"""
API = """,summary,config,name
0,"{'loss': 2.5, '_step': 9, 'bad': nan}","{'opt': {'name': 'adamw', 'lr': 0.1}}",x
1,"{""loss"": 2.0}","{'opt': {'name': 'muon', 'lr': inf}}",y
"""


def _load(tmp_path, text, columns):
    (tmp_path / "export.csv").write_text(text)
    return load_table(tmp_path / "export.csv", columns)


def test_a_table_of_runs_keeps_their_states(tmp_path):
    mapped = "label=optimizer,loss=eval/loss,learning_rate=lr"
    found = _load(tmp_path, RUNS, mapped).columns
    assert list(found["status"]) == ["finished", "unfinished", "finished"]
    np.testing.assert_array_equal(found["steps"], [100, 20, 100])
    np.testing.assert_array_equal(found["seconds"], [12, 3, 12])
    np.testing.assert_array_equal(found["optimizer.learning_rate"], [0.1, 0.2, 0.1])


def test_a_panel_becomes_curves(tmp_path):
    found = _load(tmp_path, PANEL, "id=run,label=run")
    assert list(found.columns["label"]) == ["a - b", "c"]
    np.testing.assert_array_equal(found.columns["final.loss"], [2, 3.5])
    np.testing.assert_array_equal(found.curves["a - b"]["step"], [0, 10])


def test_the_mappings_of_the_api_become_columns(tmp_path):
    mapped = "label=config.opt.name,loss=summary.loss,learning_rate=config.opt.lr"
    found = _load(tmp_path, API, mapped)
    np.testing.assert_array_equal(found.columns["final.loss"], [2.5, 2.0])
    np.testing.assert_array_equal(
        found.columns["optimizer.learning_rate"], [0.1, np.inf]
    )
    assert any("summary.bad" in note for note in found.notes)


def test_histories_are_a_run_a_file(tmp_path):
    for name in ("x", "y"):
        text = "_step,_runtime,loss\n0,1,3\n5,2,2\n"
        (tmp_path / f"{name}.csv").write_text(text)
    found = load_table(tmp_path, "label=file")
    np.testing.assert_array_equal(found.columns["steps"], [5, 5])
    np.testing.assert_array_equal(found.columns["seconds"], [2, 2])
    alike = load_table(tmp_path, "label='x',seed=file")
    assert len(alike.columns["label"]) == 2


def test_a_folder_of_events_is_what_was_written(tmp_path):
    for run in ("adamw/0", "muon/0"):
        with MetricsWriter(tmp_path / run, resume_step=0) as writer:
            for step in (10, 20, 30):
                writer.write(step, {"loss": 1 / step, "none": None})
    # Files are named by the second that they were begun in.
    first = next((tmp_path / "muon/0").glob("events*"))
    first.rename(first.with_name("events.out.tfevents.0.x"))
    with MetricsWriter(tmp_path / "muon/0", resume_step=20) as writer:
        writer.write(30, {"loss": 0.5})
    with open(next((tmp_path / "adamw/0").glob("events*")), "ab") as file:
        file.write(b"\x09\0\0")  # cut off in a record
    found = load_table(tmp_path, "label=folder")
    assert list(found.columns["label"]) == ["adamw", "muon"]
    np.testing.assert_allclose(found.columns["final.loss"], [1 / 30, 0.5])
    curve = found.curves["muon/0"]
    np.testing.assert_array_equal(curve["step"], [10, 20, 30])
    np.testing.assert_allclose(curve["loss"], [0.1, 0.05, 0.5])


@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(dtype=1, float_val=[0.25]),
        TensorProto(dtype=1, tensor_content=np.float32(0.25).tobytes()),
        TensorProto(dtype=2, tensor_content=np.float64(0.25).tobytes()),
    ],
)
def test_scalars_of_tensorflow_2_are_numbers(tensor):
    event = Event(summary=Summary(value=[Summary.Value(tag="loss", tensor=tensor)]))
    assert _scalar(event.summary.value[0]) == 0.25


def test_other_events_are_no_scalars(tmp_path):
    with SummaryWriter(str(tmp_path / "a")) as writer:
        writer.add_text("note", "a word", 1)
        writer.add_histogram("weights", np.arange(9.0), 1)
        writer.add_scalar("loss", 1.5, 1)
    found = load_table(tmp_path, "label=folder")
    assert found.columns["final.loss"][0] == 1.5
    assert not any("weights" in note for note in found.notes)
