"""The commands in docs/machines.md and its examples are ones that there are."""

import re
from pathlib import Path

import jax
import pytest
import yaml
from absl import flags

from gnomon.experiments.hosts import join

DOCS = Path(__file__).parents[3] / "docs"
FILES = [DOCS / "machines.md", *sorted((DOCS / "machines").iterdir())]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_commands_name_flags_that_exist(path, tiny):
    values = flags.FlagValues()
    join.define(values)
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    commands = re.findall(r"python -m gnomon\.experiments\.train (.*)", text)
    assert commands, "no command"
    for command in commands:
        words = re.findall(r"--([\w.]+)", command)
        assert {"config", "workdir", "distributed"} <= set(words)
        for word in set(words) - {"config", "workdir"}:
            if word.startswith("config."):
                _, *parents, last = word.split(".")
                node = tiny()
                for parent in parents:
                    node = node[parent]
                assert last in node, word
            else:
                assert word in values, word


def test_examples_parse_and_agree_with_themselves():
    assert len(FILES) == 4
    sky = yaml.safe_load((DOCS / "machines/skypilot.yaml").read_text())
    gpus = int(sky["resources"]["accelerators"].partition(":")[2])
    assert f"mesh.data={sky['num_nodes'] * gpus} " in sky["run"]
    jobs = yaml.safe_load((DOCS / "machines/jobset.yaml").read_text())
    (job,) = jobs["spec"]["replicatedJobs"]
    pods = job["template"]["spec"]
    (container,) = pods["template"]["spec"]["containers"]
    (command,) = container["args"]
    first = f"{jobs['metadata']['name']}-{job['name']}-0-0.{jobs['metadata']['name']}"
    port = container["ports"][0]["containerPort"]
    assert f"--coordinator_address={first}:{port} " in command
    assert f"--num_processes={pods['completions']} " in command
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert f"mesh.data={pods['parallelism'] * gpus} " in command


def test_flags_without_distributed_are_refused(refused, monkeypatch):
    words = ["--config=small.py", "--workdir=out"]
    line = refused("train", [*words, "--num_processes=2"])
    assert line == "error: --num_processes: give --distributed with it\n"
    line = refused("sweep", [*words, "--distributed"])
    assert "gnomon.experiments.train --distributed" in line

    def initialize():
        raise ValueError("coordinator_address should be defined.")

    # As jax does where it finds no cluster; it asks for some over the network.
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    line = refused("train", [*words, "--distributed"])
    assert line.startswith("error: --distributed: ")
    assert "--coordinator_address, --num_processes, --process_id" in line
