"""When an optimizer may be called tuned, and what counts as one scale."""

import numpy as np
import pytest

from gnomon.experiments.records.runs import flatten
from gnomon.experiments.report.cells import cells

RATES = (0.01, 0.02, 0.04, 0.08)


def _table(rows):
    """Columns from rows of dicts; a field that a row lacks is NaN or None."""
    common = {
        "status": "finished",
        "steps": 100.0,
        "parameters": 1e4,
        "compute": 1e9,
        "label": "A",
        "seed": 0.0,
    }
    rows = [common | {"id": f"t{i}"} | row for i, row in enumerate(rows)]
    columns = {}
    for name in {name: None for row in rows for name in row}:
        values = [row.get(name) for row in rows]
        if any(isinstance(value, str) for value in values):
            columns[name] = np.array(values, dtype=object)
        else:
            columns[name] = np.array(values, dtype=float)
    return columns


def _sweep(losses, **fields):
    """One seed at RATES; None makes a setting diverge."""
    return _table(
        [
            {
                "optimizer.learning_rate": rate,
                "final.validation_loss": np.nan if loss is None else loss,
                "status": "diverged" if loss is None else "finished",
                **fields,
            }
            for rate, loss in zip(RATES, losses, strict=True)
        ]
    )


def _only(table):
    (cell,) = cells(table, "validation_loss")
    return cell


@pytest.mark.parametrize(
    ("losses", "best", "status"),
    [
        ((3, 2, 1, 2), 0.04, "tuned"),
        ((1, 2, 3, 4), 0.01, "edge"),
        ((4, 3, 2, 1), 0.08, "edge"),
        ((3, 2, 1, None), 0.04, "tuned"),  # divergence shows the upper end is worse
        ((None, None, 1, 2), 0.04, "tuned"),
        ((1, None, None, None), 0.01, "edge"),
    ],
)
def test_the_optimum_is_tuned_only_inside_the_grid(losses, best, status):
    cell = _only(_sweep(losses))
    assert (cell.optimum.learning_rate, cell.status) == (best, status)
    assert (cell.tuned is not None) == (status == "tuned")


def test_a_grid_that_diverged_everywhere_has_no_optimum():
    cell = _only(_sweep((None,) * 4))
    assert cell.optimum is None
    assert cell.status == "diverged"


def test_one_learning_rate_is_not_tuned_but_none_at_all_is():
    one = _table([{"optimizer.learning_rate": 0.1, "final.validation_loss": 1.0}])
    assert _only(one).status == "single"
    assert _only(_table([{"final.validation_loss": 1.0}])).status == "tuned"


def test_a_setting_with_one_diverged_seed_cannot_win():
    rows = [
        {
            "optimizer.learning_rate": rate,
            "seed": float(seed),
            "final.validation_loss": loss,
            "status": "diverged" if np.isnan(loss) else "finished",
        }
        for rate, losses in zip(
            RATES, [(3, 3), (2, 2), (0.5, np.nan), (4, 4)], strict=True
        )
        for seed, loss in enumerate(losses)
    ]
    cell = _only(_table(rows))
    assert cell.optimum.learning_rate == 0.02
    assert [setting.diverged for setting in cell.settings] == [
        False,
        False,
        True,
        False,
    ]


def test_the_mean_over_seeds_decides_and_not_the_luckiest_seed():
    rows = [
        {
            "optimizer.learning_rate": rate,
            "seed": float(seed),
            "final.validation_loss": loss,
        }
        for rate, losses in zip(RATES, [(5, 5), (2, 2), (1, 4), (5, 5)], strict=True)
        for seed, loss in enumerate(losses)
    ]
    assert _only(_table(rows)).tuned.learning_rate == 0.02


@pytest.mark.parametrize("status", ["unfinished", "missing"])
def test_a_cell_with_trials_to_come_is_incomplete(status):
    table = _sweep((3, 1, 2, 4))
    if status == "unfinished":
        table["status"][3] = "unfinished"
        table["final.validation_loss"][3] = np.nan
    else:  # a second seed ran at one rate only
        rows = {k: np.append(v, v[:1]) for k, v in table.items()}
        rows["seed"][-1] = 1.0
        table = rows
    assert _only(table).status == "incomplete"


def test_other_hyperparameters_are_tuned_with_the_learning_rate():
    rows = [
        {
            "optimizer.learning_rate": rate,
            "optimizer.weight_decay": decay,
            "final.validation_loss": abs(np.log(rate / 0.02)) + abs(decay - 0.1),
        }
        for rate in RATES
        for decay in (0.0, 0.1)
    ]
    tuned = _only(_table(rows)).tuned
    assert tuned.values == {
        "optimizer.learning_rate": 0.02,
        "optimizer.weight_decay": 0.1,
    }


def test_what_stands_around_the_optimizer_is_tuned_with_it_at_one_scale():
    groups = [{"where": "", "multiplier": 0.0}]
    rows = []
    for rate in RATES:
        for multiplier in (0.3, 1.0):
            config = {
                "label": "A",
                "clip": {"name": "c", "max_norm": 2 * multiplier},
                "optimizer": {"learning_rate": rate},
                "parameter_groups": [groups[0] | {"multiplier": multiplier}],
            }
            loss = abs(np.log(rate / 0.02)) + abs(multiplier - 0.3)
            rows.append(flatten(config) | {"final.validation_loss": loss})
        plain = {"label": "B", "clip.name": "", "parameter_groups": "[]"}
        rate = {"optimizer.learning_rate": rate, "final.validation_loss": 1.0}
        rows.append(plain | rate)
    mine, other = cells(_table(rows), "validation_loss")
    assert mine.tuned.values == {
        "optimizer.learning_rate": 0.02,
        "clip.max_norm": 0.6,
        "parameter_groups.0.multiplier": 0.3,
    }
    assert mine.scale == other.scale


def test_scales_are_named_by_the_fields_that_tell_them_apart():
    rows = [
        {
            "optimizer.learning_rate": rate,
            "final.validation_loss": loss,
            "model.width": width,
            "model.heads": width / 8,  # says nothing that the width has not said
            "steps": steps,
            # Nothing of what follows changes what a trial learns.
            "evaluate.every": steps / 10,
            "mesh.data": rate * 1000,
            "dynamics.free": rate > RATES[1],
            "parameters": width**2,
        }
        for width in (32.0, 16.0)
        for steps in (200.0, 100.0)
        for rate, loss in zip(RATES, (2, 1, 2, 3), strict=True)
    ]
    found = cells(_table(rows), "validation_loss")
    assert [cell.scale.name for cell in found] == [
        "width 16, 100 steps",
        "width 16, 200 steps",
        "width 32, 100 steps",
        "width 32, 200 steps",
    ]
    assert found[0].scale.model == found[1].scale.model != found[2].scale.model


def test_an_unknown_metric_names_the_known_ones():
    with pytest.raises(ValueError, match="there are: validation_loss"):
        cells(_sweep((1, 2, 3, 4)), "accuracy")
