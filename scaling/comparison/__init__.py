"""Verdict statistics: is one optimizer faster than another, and how sure is that?

A `cell` is an optimizer at a `scale`, tuned over a grid of its `knob`, on request
between the grid's points (`interpolation`). `speedup` compares two cells by the
compute they need (`isotonic`, on request `power`), `summary` all scales, `profiles`
times to targets. Intervals are over seeds (`resampling`) and verdicts hold together
(`multiple`).
"""
