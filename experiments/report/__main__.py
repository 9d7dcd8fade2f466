"""``python -m gnomon.experiments.report --workdir=DIR``."""

from gnomon.experiments.report import run

if __name__ == "__main__":
    run()
