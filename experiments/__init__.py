"""Configs, data, training, sweeps and reports: the room that reads and writes.

* ``python -m gnomon.experiments.train``: one config.
* ``python -m gnomon.experiments.sweep``: a config's grid, then its report.
* ``python -m gnomon.experiments.report``: the report of a sweep's folder.
* ``python -m gnomon.experiments.data``: prepares data sets ahead of time.
"""
