"""Runs a console command: its flags, its help, and its errors as one line."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from absl import flags

from gnomon.experiments.console.errors import UserError, explain
from gnomon.experiments.console.interrupt import Interrupted
from gnomon.experiments.console.shown import one_line

HELP = ("-h", "-help", "-?", "--help", "--helpshort", "--helpfull")
AGAIN = "run the same command again to go on"


def run(
    main: Callable[[flags.FlagValues], None],
    define: Callable[[flags.FlagValues], None],
    about: str | None,
    argv: Sequence[str] | None = None,
) -> None:
    """Runs a command that takes flags and no other arguments.

    Args:
      main: the command, given its flags.
      define: defines the flags.
      about: what ``--help`` says before it lists them.
      argv: the command line; by default that of the process.
    """
    words = list(sys.argv if argv is None else argv)

    def command() -> None:
        values = flags.FlagValues()
        define(values)
        if set(words[1:]) & set(HELP):
            print(usage(values, about))
            return
        main(parse(values, words))

    guarded(command, trace="--traceback" in words)


def parse(values: flags.FlagValues, words: Sequence[str]) -> flags.FlagValues:
    """Reads a command line.

    Raises:
      UserError: names the flag.
    """
    flags.DEFINE_bool(
        "traceback", False, "Show where an error comes from.", flag_values=values
    )
    try:
        _, *others = values(list(words))
    except flags.Error as error:
        raise UserError(f"{error}; --help lists every flag") from error
    if others:
        raise UserError(f"unexpected arguments: {' '.join(others)}; write --flag=value")
    return values


def usage(values: flags.FlagValues, about: str | None) -> str:
    """What ``--help`` prints: every flag, with its meaning and its default."""
    lines = [(about or "").strip(), "", "flags:"]
    for name, flag in sorted(values.flag_values_dict().items()):
        meaning = values[name].help
        lines.append(f"  --{name}: {meaning} (default: {flag!r})")
    lines.append("  --traceback: Show where an error comes from. (default: False)")
    return "\n".join(lines)


def guarded(command: Callable[[], None], *, trace: bool = False) -> None:
    """Runs a command; what a person can cause ends it in one line.

    Such an error has exit status 2, a requested stop 130. Any other error is a fault
    of gnomon and goes on its way.

    Args:
      command: the command.
      trace: let every error go on its way.
    """
    try:
        _see_modules()
        with _quiet(), _stoppable():
            command()
    except Interrupted as stopped:
        _end(f"{stopped}; {AGAIN}", 130)
    except KeyboardInterrupt:
        _end(f"stopped; {AGAIN}", 130)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        line = None if trace else explain(error)
        if line is None:
            raise
        _end(f"error: {line}", 2)


def _see_modules() -> None:
    """As `python -m` does: the folder that one is in is where one's modules are."""
    try:
        here = os.getcwd()
    except FileNotFoundError as error:
        raise UserError(
            "the current folder has been deleted; go to one that exists"
        ) from error
    if not sys.flags.safe_path and not {"", here} & set(sys.path):
        sys.path.insert(0, here)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Makes Ctrl-C a KeyboardInterrupt wherever it comes.

    Python drops what is raised while it collects garbage: there it is raised again
    after a moment.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGINT) != signal.default_int_handler:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_name in ("__del__", "_xla_gc_callback"):
                again = threading.Timer(0.05, signal.raise_signal, (number,))
                again.daemon = True
                again.start()
                return
            frame = frame.f_back
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out what threads of a failed write print of their closed event loop."""
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook
    yield
    # Not after an error: such threads outlive it.
    sys.unraisablehook = before


def _end(line: str, status: int) -> None:
    print(one_line(line), file=sys.stderr)
    sys.exit(status)
