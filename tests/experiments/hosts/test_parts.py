"""A checkpoint that several processes write, whole or absent, read by any number."""

import contextlib
import functools
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boards import Shared
from disk import Disk, Killed
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gnomon.experiments.hosts.crew import Agreed, Crew
from gnomon.experiments.trial.checkpoint import Checkpoints
from gnomon.experiments.trial.shares import Share


class Mate(Crew):
    """A process that a thread plays, with some of this process's devices as its own."""

    def owns(self, shard):
        return super().owns(shard) and shard.device.id * self.count // 4 == self.index


def mesh():
    return jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])


@functools.cache
def tree(step):
    """Arrays that are cut, whole, of keys, empty, and no arrays of devices."""
    cut, whole = (NamedSharding(mesh(), spec) for spec in (P(None, "data"), P()))
    rng = np.random.default_rng(step)
    w = rng.standard_normal((3, 8)).astype(np.float32)
    return {
        "w": jax.device_put(w, cut),
        "half": jax.device_put(jnp.asarray(w[:, 0], jnp.bfloat16), whole),
        "key": jax.device_put(jax.random.key(step), whole),
        "scalar": jax.device_put(np.int32(step), whole),
        "empty": jax.device_put(np.zeros((0, 4), np.float32), whole),
        "host": rng.standard_normal(2),
        "count": step,
    }


def bits(found):
    keys = jax.random.key_data(found["key"])
    leaves = jax.tree.leaves(found | {"key": keys})
    return [(np.asarray(x).dtype, np.asarray(x).tobytes()) for x in leaves]


def each(mates, function):
    with ThreadPoolExecutor(len(mates)) as threads:
        return list(threads.map(function, mates))


def keepers(folder, count, board):
    return [
        Checkpoints(folder, crew=Mate(index, count, board)) for index in range(count)
    ]


def save(keepers, step):
    for keeper in keepers:
        keeper.save(step, tree(step), {"position": step})
    for keeper in keepers:
        keeper.wait()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Steps 1 and 2 by four processes."""
    folder = tmp_path_factory.mktemp("parts") / "checkpoints"
    four = keepers(folder, 4, Shared())
    save(four, 1)
    save(four, 2)
    each(four, lambda keeper: keeper.close())
    return folder


def test_any_number_of_processes_reads_it(saved, board, tmp_path):
    with Checkpoints(saved) as lone:
        step, found, meta = lone.restore(tree(0))
    assert (step, meta) == (2, {"position": 2})
    assert bits(found) == bits(tree(2)) != bits(tree(1))
    assert found["w"].sharding == tree(0)["w"].sharding
    two = keepers(saved, 2, board)
    for step, found, _ in each(two, lambda keeper: keeper.restore(tree(0))):
        assert (step, bits(found)) == (2, bits(tree(2)))
    # And the reverse: what one process wrote.
    shutil.copytree(saved, tmp_path / "own")
    with Checkpoints(tmp_path / "own") as lone:
        lone.save(3, tree(3), {})
    assert (tmp_path / "own/3/arrays.npz").exists()
    three = keepers(tmp_path / "own", 4, Shared())
    for step, found, _ in each(three, lambda keeper: keeper.restore(tree(0))):
        assert (step, bits(found)) == (3, bits(tree(3)))
    save(three, 4)
    with Checkpoints(tmp_path / "own") as lone:
        assert lone.restore(tree(0))[0] == 4


def test_numpy_alone_reads_it(saved):
    manifest = json.loads((saved / "2/manifest.json").read_text())["manifest"]
    (leaf,) = (leaf for leaf in manifest["leaves"] if leaf["path"] == "w")
    assert [shard["start"] for shard in leaf["shards"]] == [
        [0, 0],
        [0, 2],
        [0, 4],
        [0, 6],
    ]
    assert len({shard["file"] for shard in leaf["shards"]}) == 4
    whole = np.full(leaf["shape"], np.nan, leaf["dtype"])
    for shard in leaf["shards"]:
        part = np.load(saved / "2" / shard["file"])[shard["name"]]
        (_, start), (_, width) = shard["start"], part.shape
        whole[:, start : start + width] = part
    np.testing.assert_array_equal(whole, tree(2)["w"])


@pytest.mark.parametrize("harm", ["flip", "lose"])
def test_a_part_that_is_harmed_makes_it_damaged(saved, tmp_path, harm):
    shutil.copytree(saved, tmp_path / "harmed")
    part = tmp_path / "harmed/2/arrays-00002-of-00004.npz"
    if harm == "lose":
        part.unlink()
    else:
        found = bytearray(part.read_bytes())
        found[found.index(np.asarray(tree(2)["w"])[0, 4:6].tobytes())] ^= 1
        part.write_bytes(found)
    with Checkpoints(tmp_path / "harmed") as lone:
        step, found, _ = lone.restore(tree(0))
        assert "arrays-00002-of-00004.npz" in lone.notes[0]
    assert (step, bits(found)) == (1, bits(tree(1)))


def test_a_kill_at_any_change_of_the_disk_leaves_the_last_good_one(board, tmp_path):
    """Of both processes at once, at each of the changes that a save makes."""
    before = tmp_path / "before"
    save(keepers(before, 2, board), 1)
    steps = []
    for at in range(1, 100):
        folder = shutil.copytree(before, tmp_path / str(at))
        two = keepers(folder, 2, Shared())
        with Disk(folder, at, "kill") as disk:
            for keeper in two:
                keeper.save(2, tree(2), {"position": 2})
            for keeper in two:
                if disk.fired:
                    keeper.give_up()
                with contextlib.suppress(Killed):
                    # What waits for the dead one is told only when that has died.
                    while not keeper._pending.done():
                        time.sleep(0.002)
                        if disk.fired:
                            [one.give_up() for one in two]
                    keeper.wait()
        if not disk.fired:
            break
        with Checkpoints(folder) as lone:
            step, found, _ = lone.restore(tree(0))
            assert lone.notes == []
        assert bits(found) == bits(tree(step))
        steps.append(step)
        if at % 8 == 0:  # the next ones begin where nothing of it is left
            again = keepers(folder, 2, Shared())
            again[0].clean()
            save(again, 3)
            assert not list(folder.glob("*.tmp"))
    assert len(steps) > 15
    assert set(steps) == {1, 2}


def test_without_one_part_there_is_no_checkpoint(board, tmp_path):
    first, second = keepers(tmp_path, 2, board)
    first.save(1, tree(1), {})
    assert not first._pending.done()
    first.give_up()
    first.close()
    with Checkpoints(tmp_path) as lone:
        assert lone.restore(tree(0)) is None
    second.close()


def test_what_one_process_refuses_all_refuse(board):
    def refuse(mate):
        def function():
            if mate.index == 1:
                raise FileNotFoundError(2, "No such file or directory", "a.py")
            return "ready"

        with pytest.raises(Agreed) as found:
            mate.together(function)
        said = mate.told(lambda: {"step": 3})
        with pytest.raises(Agreed, match="process 2 has another seed than process 0"):
            mate.same("seed", lambda: str(mate.index // 2))
        return str(found.value), said

    mates = [Mate(index, 3, board) for index in range(3)]
    (first, told), (own, _), _ = each(mates, refuse)
    assert (first, told) == (f"process 1: {own}", {"step": 3})
    assert own.endswith("a.py: No such file or directory")


def test_a_process_gathers_what_its_devices_need():
    class Partly:
        """A sharding some of whose devices are in other processes."""

        is_fully_addressable = False

        def addressable_devices_indices_map(self, shape):
            whole = NamedSharding(mesh(), P(None, "data")).devices_indices_map(shape)
            return {d: place for d, place in whole.items() if d.id in (0, 3)}

    share = Share(Partly(), 1, 8)
    assert share.of(10 * np.arange(8)).tolist() == [0, 10, 60, 70]
    assert Share(NamedSharding(mesh(), P()), 0, 8).rows is None
