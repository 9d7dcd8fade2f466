"""``python -m gnomon.experiments.cockpit --workdir=DIR``."""

from gnomon.experiments.cockpit.command import run

if __name__ == "__main__":
    run()
