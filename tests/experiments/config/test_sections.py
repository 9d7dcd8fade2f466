"""Sections of a config that are given in part."""

import pytest

from gnomon.experiments.config import defaults, open_config, override, plain
from gnomon.experiments.config.cli import changed
from gnomon.experiments.config.template import OWN as SECTIONS

OWN = {name: defaults().to_dict()[name] for name in SECTIONS}


@pytest.mark.parametrize("section", OWN)
def test_a_section_given_in_part_has_its_other_fields(section, workplace, tiny):
    """From the file, the command line, an override, and a caller of the library."""
    fields = plain(OWN[section])
    for given in [{}, *({name: value} for name, value in OWN[section].items())]:
        source = f"config.{section} = dict(**{given!r})\n    return config"
        text = (workplace / "small.py").read_text()
        (workplace / "part.py").write_text(text.replace("return config", source))
        file = open_config("part.py")
        for name, value in OWN[section].items():
            word = f"--config.{section}.{name}={value}"
            assert changed(file, [word])[section] == fields
        base = tiny() | {section: {}}
        assert override(base, {})[section] == fields
        assert override(base, {section: given})[section] == fields
        last = {f"{section}.{name}": value for name, value in given.items()}
        assert override(base, last | {section: given})[section] == fields
