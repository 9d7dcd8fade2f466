"""The cockpit page: what the probes of a run saw, in one self-contained HTML file.

    python -m gnomon.experiments.cockpit --workdir=DIR [--trial=ID] [--output=PATH]

reads ``DIR/metrics.jsonl``, or ``DIR/trials/ID/metrics.jsonl`` of a sweep, and writes
``cockpit.html`` beside it. From another training loop, :func:`cockpit` makes the page
of any rows whose keys are those of `gnomon.dynamics.names`.
"""

from gnomon.experiments.cockpit.page import cockpit

__all__ = ["cockpit"]
