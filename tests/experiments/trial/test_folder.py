"""Whether a run may go on in a folder."""

import pytest

from gnomon.experiments.config.fields import SILENT
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import make_trial
from gnomon.experiments.records.files import write_json
from gnomon.experiments.trial.folder import same_run


def test_fields_that_came_later_make_no_other_run(tiny, tmp_path):
    """The trial's id does not tell those that say nothing; neither does its folder."""
    trial = make_trial(tiny())
    saved = {k: v for k, v in trial.config.items() if k not in SILENT}
    write_json(tmp_path / "config.json", saved)
    same_run(tmp_path, trial)
    other = make_trial(tiny(spikes__action="skip"))
    with pytest.raises(ConfigError, match=r"spikes\.action was '' and is now"):
        same_run(tmp_path, other)
