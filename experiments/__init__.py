"""The room that reads and writes: configs, data, training, sweeps and reports.

The commands:

* ``python -m gnomon.experiments.train``: one config.
* ``python -m gnomon.experiments.sweep``: a config's grid, then its report.
* ``python -m gnomon.experiments.report``: the report of a sweep's folder.
* ``python -m gnomon.experiments.cockpit``: what the probes of a run saw, on a page.
* ``python -m gnomon.experiments.data``: prepares data sets ahead of time.
* ``python -m gnomon.experiments.leaderboard``: the page of all stored results.

Its own rooms, from the ground up; each may import those above it in this list:

* `console/`: what a person sees of a command: flags, progress, errors.
* `config/`: what an experiment is: fields, checks, grids, trials.
* `hosts/`: the processes that train one trial together.
* `records/`: what runs leave behind: files, metrics, results, run tables.
* `exchange/`: run tables as files: those of sweeps, and those that others made.
* `data/`: what models learn from, and in which order.
* `trial/`: what trains the trials of a group: program, lanes, loop, checkpoints.
* `fleet/`: who runs what: plan, chunks, this process, Ray or Slurm.
* `drawing/`: one engine of pictures and pages, for the two below.
* `cockpit/`: what the probes of a run saw.
* `report/`: what a sweep found: tuning, speedups, laws, pictures, verdict.
* `tuning/`: what a sweep adds to itself: rates to its grids, lengths to its baseline,
  points to its searches.
* `configs/`: the experiments that ship with gnomon.

Beside them stand the commands, which no room imports, and ``tasks`` and ``schedules``,
which configs name.

Twelve nouns:

* config: a nested dict of all that decides a result; a file's `get_config` makes it.
* override: dotted fields and their new values, as a sweep varies them.
* trial: one fully resolved config; its id is a hash of what decides its result.
* label: the name of a trial's optimizer in tables and pictures.
* sweep: the trials that a config file's `sweep` yields, and their folder.
* program: a trial as pure functions, init, step and evaluate, of traced numbers.
* group: trials whose programs differ in traced numbers alone: one compilation.
* lane: a trial's place along the leading axis of a group's compiled program.
* chunk: trials of a group that run as lanes together; what a process claims.
* run: a trial as its folder tells it: config, metrics, checkpoints.
* result: what a trial leaves when it ends: its status, and its final metrics.
* run table: runs as columns, a row each: what reports and laws read.
"""

import sys

from gnomon.experiments.console import entry

if entry.starting():
    sys.excepthook = entry.say
