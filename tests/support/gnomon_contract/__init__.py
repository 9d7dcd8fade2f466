"""The contract of the optimizers: what a row is, and where rows come from.

A method's test file, ``tests/optimizers/<family>/test_<method>.py``, says what the
suite in ``tests/optimizers/contract`` needs to know of the method. All are
optional, but for the rule that each public optimizer has a row:

* ``ROWS``: a tuple of :class:`Row`, each run through all of ``test_contract.py``;
* ``GIVEN``: for a public function, the arguments that build it where its defaults do
  not: those without a default, and sizes at which a small tree is not left alone;
* ``LAYERS``: for a public function, how to build it for ``test_stacked_layers.py``
  where its defaults would leave something out, see ``layers.py``;
* ``TRAITS``: for a public function, what sets it apart from the others:
  ``"either sign"`` hands on updates that climb or descend, as a link of a chain would;
  ``"unsigned"`` codes moments without a sign, which cannot become negative;
* ``VERIFIED``: for a public method, its number in the catalogue, what it was compared
  with, and the largest difference, see :class:`Verified`;
* ``COMPLEX``: for a public function that takes complex numbers, how to build what is
  ``optax.adam(0.1)`` with it; the others refuse them.
"""

from gnomon_contract.rows import POLYAK, Problem, Row, around_adamp, matrices, quadratic
from gnomon_contract.verified import Verified

__all__ = [
    "POLYAK",
    "Problem",
    "Row",
    "Verified",
    "around_adamp",
    "matrices",
    "quadratic",
]
