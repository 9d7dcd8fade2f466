"""A checkpoint comes back bit for bit, falls back when damaged, or is refused."""

import json
import shutil
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gnomon.experiments.console.errors import UserError
from gnomon.experiments.trial.arrays import load_arrays
from gnomon.experiments.trial.checkpoint import Checkpoints
from gnomon.experiments.trial.stored import CheckpointMismatchError


def _params(step: int) -> dict:
    rng = np.random.default_rng(step)
    return {
        "embed": jnp.asarray(rng.standard_normal((64, 32)), jnp.float32),
        "dense": {"w": jnp.asarray(rng.standard_normal((32, 16)), jnp.bfloat16)},
    }


def _tree(step: int) -> dict:
    """Every kind of leaf a run may hold; all of its bytes depend on `step`."""
    params = _params(step)
    rng = np.random.default_rng(1000 + step)
    # Quiet and signalling NaNs of both signs, with payloads.
    nans = rng.integers(1, 2**22, 8, np.uint32) | np.uint32(0x7F800000)
    nans[::2] |= np.uint32(0x80000000)
    return {
        "params": params,
        "opt_state": optax.adam(1e-3).init(params),
        "keys": jax.random.split(jax.random.key(step), 3),
        "rbg": jax.random.key(step, impl="rbg"),
        "raw_key": jax.random.PRNGKey(step),
        "nans": jnp.asarray(nans.view(np.float32)),
        "bf16_nan": jnp.asarray(
            np.array([0x7F81 + step], np.uint16).view(jnp.bfloat16)
        ),
        "bytes": jnp.asarray(rng.integers(0, 256, 9, np.uint8)),
        "mask": jnp.asarray(rng.integers(0, 2, 7).astype(bool)),
        "scalar": jnp.asarray(step, jnp.int32),
        "minus_zero": jnp.asarray(-0.0),
        "empty": jnp.zeros((0, 4), jnp.bfloat16),
        "no_keys": jax.random.split(jax.random.key(step), 2)[:0],
        "host": rng.integers(-(2**62), 2**62, 4, np.int64),
        "host_scalar": np.float64(step + 0.1),
        "fp8": jnp.asarray(rng.standard_normal(5), jnp.float8_e4m3fn),
        "complex": jnp.asarray([complex(step, -0.0)], jnp.complex64),
        "count": step,
        "lr": 0.1 * step,
        "flag": step % 2 == 0,
        "nothing": None,
    }


def _bits(leaf) -> tuple:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return (str(leaf.dtype), *_bits(jax.random.key_data(leaf)))
    if isinstance(leaf, bool | int | float) and not isinstance(leaf, np.generic):
        return type(leaf), repr(leaf)
    array = np.asarray(leaf)
    return type(leaf), array.dtype, array.shape, array.tobytes()


def _equal(tree, other) -> bool:
    if jax.tree.structure(tree) != jax.tree.structure(other):
        return False
    leaves, others = jax.tree.leaves(tree), jax.tree.leaves(other)
    return [_bits(x) for x in leaves] == [_bits(x) for x in others]


def _abstract(tree):
    def shape_of(leaf):
        if isinstance(leaf, jax.Array):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        return leaf

    return jax.tree.map(shape_of, tree)


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory) -> Path:
    """A folder with checkpoints of steps 10 and 20; copy it before harming it."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, _tree(step), {"position": step})
    return folder


def _copy(folder: Path, tmp_path: Path) -> Path:
    target = tmp_path / "checkpoints"
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(folder, target))


@pytest.mark.parametrize("target", [_abstract, lambda tree: tree])
def test_every_kind_of_leaf_comes_back_bit_for_bit(two_steps, target):
    with Checkpoints(two_steps) as checkpoints:
        step, tree, meta = checkpoints.restore(target(_tree(0)))
        assert (step, meta, checkpoints.notes) == (20, {"position": 20}, [])
    assert _equal(tree, _tree(20))
    assert not _equal(tree, _tree(10))


def test_an_empty_folder_and_a_tree_without_bytes(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore({"w": jnp.ones(3)}) is None
        assert checkpoints.latest is None
        assert checkpoints.notes == []
        tree = {"none": jnp.zeros((0,)), "count": 3}
        checkpoints.save(1, tree, {})
        _, restored, _ = checkpoints.restore(tree)
    assert _equal(restored, tree)


def test_meta_comes_back_with_its_nans_and_big_numbers(tmp_path):
    meta = {"best": float("inf"), "seed": 2**100, "x": [0.1, {"y": None}], 7: "seven"}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": jnp.ones(3)}, meta)
        _, _, restored = checkpoints.restore({"w": jnp.ones(3)})
    seven = {"7" if key == 7 else key: value for key, value in meta.items()}
    assert restored == seven


def test_paths_that_read_the_same_are_kept_apart(tmp_path):
    tree = {"a/b": jnp.ones(2), "a": {"b": jnp.zeros(2)}, "": jnp.full(2, 5.0)}
    # What `numpy.savez` would take for its own.
    tree |= {"file": jnp.ones(1), "w": jnp.zeros(3), "w.npy": jnp.ones(3)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree, {})
        _, restored, _ = checkpoints.restore(tree)
    assert _equal(restored, tree)


def test_shardings_of_the_target_are_those_of_the_result(tmp_path):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("x"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    columns = NamedSharding(mesh, PartitionSpec(None, "x"))
    saved = {"w": rows, "key": rows, "count": everywhere}
    # Saved in rows, wanted in columns: the layout is the target's business.
    wanted = {"w": columns, "key": everywhere, "count": everywhere}
    tree = {
        "w": jnp.arange(64.0).reshape(8, 8),
        "key": jax.random.split(jax.random.key(0), 8),
        "count": jnp.asarray(3),
    }
    tree = jax.tree.map(jax.device_put, tree, saved)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree, {})
        for shardings in (saved, wanted):
            target = jax.tree.map(
                lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
                tree,
                shardings,
            )
            _, restored, _ = checkpoints.restore(target)
            assert _equal(restored, tree)
            for name, x in restored.items():
                assert x.sharding.is_equivalent_to(shardings[name], x.ndim)


def test_a_restored_array_is_bound_to_a_device_only_as_the_target_is(tmp_path):
    device = jax.devices()[1]
    tree = {"free": jnp.ones(3), "bound": jax.device_put(jnp.ones(3), device)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree, {})
        _, restored, _ = checkpoints.restore(tree)
    assert restored["bound"].devices() == {device}
    # Two arrays bound to different devices could not be added.
    assert (restored["free"] + restored["bound"]).devices() == {device}


def test_buffers_may_be_donated_right_after_a_save(tmp_path):
    step = jax.jit(lambda x: x * 1.5 + 1, donate_argnums=0)
    x = jnp.arange(500_000.0)
    expected = {}
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for i in range(1, 4):
            expected[i] = np.array(x)
            checkpoints.save(i, {"x": x}, {})
            # While the save is still being written in the background.
            for _ in range(20):
                donated, x = x, step(x)
                # Reused, not copied: the save left no view of it behind.
                assert donated.is_deleted()
        restored_step, restored, _ = checkpoints.restore({"x": x})
        assert restored_step == 3
        np.testing.assert_array_equal(restored["x"], expected[3])
        # And what was restored may be donated too.
        again = step(restored["x"])
        np.testing.assert_array_equal(again, step(jnp.asarray(expected[3])))


def test_only_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (3, 5, 20, 100):
            checkpoints.save(step, _params(step), {})
        assert checkpoints.latest == 100
        checkpoints.wait()
        assert sorted(int(entry.name) for entry in tmp_path.iterdir()) == [20, 100]


def test_a_step_that_is_not_newer_is_refused_instead_of_dropped(two_steps, tmp_path):
    with Checkpoints(_copy(two_steps, tmp_path)) as checkpoints:
        for step in (5, 20):
            with pytest.raises(ValueError, match=f"step={step} is not after"):
                checkpoints.save(step, _tree(step), {})
        checkpoints.save(30, _tree(30), {})
        with pytest.raises(ValueError, match="step=30 is not after checkpoint 30"):
            checkpoints.save(30, _tree(30), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t["params"].update(embed=jnp.ones((64, 16))),
            r"the checkpoint has params/embed f32\[64,32\]; "
            r"this run has params/embed f32\[64,16\]",
        ),
        (
            lambda t: t["params"].update(embed=jnp.ones((64, 32), jnp.bfloat16)),
            r"has params/embed f32\[64,32\]; this run has params/embed bf16\[64,32\]",
        ),
        (
            lambda t: t["params"].pop("embed"),
            r"has params/embed f32\[64,32\]; this run has no params/embed",
        ),
        (
            lambda t: t["params"].update(extra=jnp.ones(2)),
            r"the checkpoint has no params/extra; this run has params/extra f32\[2\]",
        ),
        (
            lambda t: t.update(zz=jnp.ones(2)),
            r"the checkpoint has no zz; this run has zz f32\[2\]",
        ),
        (
            lambda t: t.update(keys=jax.random.key_data(t["keys"])),
            r"has keys key<fry>\[3\]; this run has keys u32\[3,2\]",
        ),
        (
            lambda t: t.update(rbg=jax.random.key(0)),
            r"has rbg key<rbg>\[\]; this run has rbg key<fry>\[\]",
        ),
        (
            lambda t: t.update(opt_state=optax.sgd(0.1, 0.9).init(t["params"])),
            r"has opt_state/0 ScaleByAdamState; this run has opt_state/0 TraceState",
        ),
        # The same paths, shapes and dtypes: only the state's name tells them apart.
        (
            lambda t: t.update(opt_state=optax.adan(1e-3).init(t["params"])),
            r"has opt_state/0 ScaleByAdamState; "
            r"this run has opt_state/0 ScaleByAdanState",
        ),
    ],
)
def test_another_model_or_optimizer_is_refused_by_the_first_path(
    two_steps, change, message
):
    target = _tree(0)
    change(target)
    with Checkpoints(two_steps) as checkpoints:
        with pytest.raises(CheckpointMismatchError, match=message) as error:
            checkpoints.restore(target)
        assert "another model or optimizer; use another --workdir" in str(error.value)
        # A refusal harms nothing.
        assert checkpoints.restore(_tree(0))[0] == 20


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _clear(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [_truncate, _clear, _flip, Path.unlink])
def test_harm_to_any_file_is_seen_and_gives_the_checkpoint_before(
    two_steps, tmp_path, harm
):
    files = [
        path.relative_to(two_steps)
        for path in sorted((two_steps / "20").rglob("*"))
        if path.is_file() and path.stat().st_size
    ]
    assert len(files) == 2
    for file in files:
        folder = _copy(two_steps, tmp_path)
        harm(folder / file)
        with Checkpoints(folder) as checkpoints:
            step, tree, meta = checkpoints.restore(_abstract(_tree(0)))
            assert (step, meta) == (10, {"position": 10}), file
            assert _equal(tree, _tree(10)), file
            (note,) = checkpoints.notes
        assert f"checkpoint {folder / '20'} is damaged: " in note
        assert file.name in note


def _reseal(path: Path, change) -> None:
    """Changes a manifest and makes its own checksum right again."""
    manifest = json.loads(path.read_text())["manifest"]
    change(manifest)
    crc = zlib.crc32(json.dumps(manifest, sort_keys=True).encode())
    path.write_text(json.dumps({"crc32": crc, "manifest": manifest}))


def test_other_numbers_in_whole_files_are_seen_by_the_leaf_checksums(
    two_steps, tmp_path
):
    """The archive is whole, and NumPy reads it: one bit of one number is not right."""
    folder = _copy(two_steps, tmp_path)
    with Checkpoints(tmp_path / "other") as other:
        changed = _tree(20)
        bits = jax.lax.bitcast_convert_type(changed["params"]["embed"], jnp.uint32)
        bits = bits.at[3, 5].set(bits[3, 5] ^ 1)
        changed["params"]["embed"] = jax.lax.bitcast_convert_type(bits, jnp.float32)
        other.save(20, changed, {"position": 20})
    shutil.copy(tmp_path / "other" / "20" / "arrays.npz", folder / "20" / "arrays.npz")
    with Checkpoints(folder) as checkpoints:
        step, tree, _ = checkpoints.restore(_abstract(_tree(0)))
        assert "the bytes of params/embed have changed" in checkpoints.notes[0]
    assert step == 10
    assert _equal(tree, _tree(10))


def test_a_changed_manifest_is_seen(two_steps, tmp_path):
    folder = _copy(two_steps, tmp_path)
    path = folder / "20" / "manifest.json"
    text = path.read_text()
    assert text.count('"position": 20') == 1
    path.write_text(text.replace('"position": 20', '"position": 21'))
    with Checkpoints(folder) as checkpoints:
        step, _, meta = checkpoints.restore(_tree(0))
        assert "manifest.json has changed" in checkpoints.notes[0]
    assert (step, meta) == (10, {"position": 10})


@pytest.mark.parametrize("version", [1, 2])
def test_a_checkpoint_of_another_format_is_refused(two_steps, tmp_path, version):
    folder = _copy(two_steps, tmp_path)
    for step in ("10", "20"):
        path = folder / step / "manifest.json"
        _reseal(path, lambda manifest: manifest.update(format=version))
    said = (
        f"checkpoint .*20 has format {version}; this version .* use another --workdir"
    )
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(CheckpointMismatchError, match=said),
    ):
        checkpoints.restore(_tree(0))
    with pytest.raises(UserError, match=f"has format {version}; this version"):
        load_arrays(tmp_path)


def test_the_arrays_are_an_archive_that_numpy_alone_can_read(two_steps):
    with np.load(two_steps / "20" / "arrays.npz", allow_pickle=False) as arrays:
        embed, w = arrays["params/embed"], arrays["params/dense/w"]
    params = _tree(20)["params"]
    np.testing.assert_array_equal(embed, np.asarray(params["embed"]))
    bits = np.asarray(params["dense"]["w"]).view(np.uint16)  # of what NumPy has not
    np.testing.assert_array_equal(w.view(np.uint16), bits)


def test_a_run_goes_on_over_the_damaged_checkpoint(two_steps, tmp_path):
    """After a fallback the damaged step is saved anew, and the good one survives."""
    folder = _copy(two_steps, tmp_path)
    (folder / "20" / "arrays.npz").unlink()
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore(_tree(0))[0] == 10
        assert checkpoints.latest == 10
        checkpoints.save(20, _tree(20), {"position": 20})
        step, tree, _ = checkpoints.restore(_tree(0))
        assert (step, checkpoints.notes) == (20, [])
        assert _equal(tree, _tree(20))
    assert sorted(entry.name for entry in folder.iterdir()) == ["10", "20"]


def test_no_good_checkpoint_is_said_and_the_run_may_start_anew(
    two_steps, tmp_path, caplog
):
    folder = _copy(two_steps, tmp_path)
    for step in ("10", "20"):
        _clear(folder / step / "manifest.json")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore(_tree(0)) is None
        assert [Path(n.split()[1]).name for n in checkpoints.notes] == ["20", "10"]
        assert f"no checkpoint in {folder} is readable" in caplog.text
        checkpoints.save(5, _tree(5), {})
        assert checkpoints.restore(_tree(0))[0] == 5


def test_leaves_and_meta_that_cannot_be_stored_are_named(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(TypeError, match="a/name is a str, not an array"):
            checkpoints.save(1, {"a": {"name": "x"}}, {})
        with pytest.raises(TypeError, match="meta cannot be stored as JSON"):
            checkpoints.save(1, {"w": jnp.ones(2)}, {"x": object()})
        assert checkpoints.restore({"w": jnp.ones(2)}) is None


def test_double_precision_is_not_halved_in_silence(tmp_path):
    with jax.enable_x64(True), Checkpoints(tmp_path) as checkpoints:
        tree = {"w": jnp.asarray([1 / 3], jnp.float64)}
        checkpoints.save(1, tree, {})
        _, restored, _ = checkpoints.restore(tree)
        assert _equal(restored, tree)
    target = {"w": jax.ShapeDtypeStruct((1,), np.dtype("float64"))}
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(TypeError, match="w is float64 but came back as float32"),
    ):
        checkpoints.restore(target)


def test_ml_dtypes_survive_as_host_arrays(tmp_path):
    tree = {"w": np.arange(8).astype(ml_dtypes.bfloat16)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree, {})
        _, restored, _ = checkpoints.restore(tree)
    assert _equal(restored, tree)
