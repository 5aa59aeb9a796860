"""The command line: the groups of commands, and the place where errors become exit codes.

The modules of this package import heavy libraries inside functions only, so `picochat --help` loads
neither torch nor pydantic.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from picochat.cli import data, export, run, sanity, scales
from picochat.cli.eval import eval_folder
from picochat.cli.gallery import gallery
from picochat.cli.streams import outlast_readers
from picochat.core.errors import BadInput, HostProblem, Interrupted, PicochatError, WrongUsage
from picochat.core.progress import say_in_handler

HELP = """A bounded slice of public text becomes a small chat model, with evidence that a\
 stranger can check.

The path: data hf-import, data preview, data task-pack, run tiny --preflight-only, run tiny,\
 run bundle, export hf.

Exit codes: 0 done. 1 unexpected error. 2 wrong usage. 3 an honest no (preflight, gate,\
 verification or export said no).
4 bad input. 5 network or Hub. 129, 130 and 143 interrupted; the same command goes on.\
 In a pipe, `set -o pipefail` keeps
them.
"""
LESS_MEMORY = "choose a smaller --scale, or a machine with more memory"
TORCH_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # of a RuntimeError without a type
GOES_ON = "the same command goes on"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WORDS_THAT_MAY_BE_EMPTY = ("--dataset-summary", "--eval-summary", "--commit-message")

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data", help="import text, look at it, make skill rows")
app.add_typer(run.app, name="run", help="preflight, train, bundle, verify")
app.add_typer(export.app, name="export", help="a folder that any tool loads")
app.add_typer(sanity.app, name="sanity", help="does this host train right, and how fast")
app.command("scales")(scales.scales)
app.command("eval")(eval_folder)
app.command("gallery")(gallery)


def _show_version(wanted: bool) -> None:
    if wanted:
        from picochat.core.machine import picochat_version

        typer.echo(f"picochat {picochat_version()}")
        raise typer.Exit


@app.callback(help=HELP)
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command of sys.argv and exit with its code."""
    outlast_readers()
    sys.unraisablehook = _end_if_stopped
    code = run_command(sys.argv[1:])
    if code > 128:
        # Its message is printed. A second signal would kill the process while it ends.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def run_command(arguments: list[str]) -> int:
    """Run one command line and return its exit code.

    Errors that picochat foresaw are printed to stderr. A bug keeps its traceback.
    """
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP: keep that
            signal.signal(number, _stop)
    try:
        require_values(arguments)
        code = app(arguments, prog_name="picochat", standalone_mode=False)
        # typer turns a KeyboardInterrupt inside a command into 130 and prints nothing.
        if code == 130:
            return _say(_interrupted())
    except (PicochatError, Interrupted) as error:
        return _say(error)
    except KeyboardInterrupt:
        return _say(_interrupted())
    except OSError as error:
        return _say(_host_problem(error))
    except Exception as error:
        if isinstance(error, MemoryError) or TORCH_MEMORY in str(error):
            return _say(HostProblem("memory is full; what was finished is kept", fix=LESS_MEMORY))
        code = _usage_exit(error)
        if code is None:
            raise
    return int(code or 0)


def require_values(arguments: list[str]) -> None:
    """Raise WrongUsage for an empty value: a shell passes one for a variable that is not set."""
    for number, argument in enumerate(arguments):
        name, separator, value = argument.partition("=")
        if argument and not (separator and name.startswith("--") and not value):
            continue
        option = name or (arguments[number - 1] if number else "")
        if option not in WORDS_THAT_MAY_BE_EMPTY:
            where = option if option.startswith("--") else f"argument {number + 1}"
            raise WrongUsage(
                f"{where} is empty", fix="give it a value; a shell variable there may not be set"
            )


def _say(error: PicochatError | Interrupted) -> int:
    from picochat.present.printable import printable

    for line in error.lines():
        print(printable(line), file=sys.stderr)
    return error.exit_code


def _usage_exit(error: Exception) -> int | None:
    """Print an error of the command-line library, such as an unknown flag; returns its exit code.

    None for any other error. Errors are recognized by name and method, because newer versions of
    typer have their own copy of click.
    """
    if type(error).__name__ == "Abort":
        return _say(_interrupted())
    show = getattr(error, "show", None)
    if show is None:
        return None
    show()
    return 2


def _interrupted() -> Interrupted:
    return Interrupted(signal.SIGINT, "interrupted; what was finished is kept", fix=GOES_ON)


def _host_problem(error: OSError) -> PicochatError:
    """An error of the file system as one sentence with a remedy."""
    name = error.filename2 or error.filename  # filename2 is the target of a rename
    where = f" ({name})" if name else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HostProblem(
            f"the disk is full{where}; what was finished is kept",
            fix=f"free some space, then {GOES_ON}",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BadInput(
            f"no permission to write or read there{where}",
            fix="choose another folder, or change its owner or mode",
        )
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP):
        return BadInput(
            f"a path cannot be used: {error.strerror}{where}", fix="choose another path"
        )
    return HostProblem(f"the system said: {error.strerror or error}{where}")


def _stop(number: int, frame: FrameType | None) -> None:
    """The first signal ends the work in order, the next one ends the process."""
    for each in STOP_SIGNALS:
        if signal.getsignal(each) is _stop:
            signal.signal(each, _stop_at_once)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Interrupted(number, "terminated; what was finished is kept", fix=GOES_ON)


def _end_if_stopped(unraisable: sys.UnraisableHookArgs) -> None:
    """End the process where Python dropped the error of a signal, as in a callback of gc.

    The command would otherwise go on as if nobody had stopped it.
    """
    error = unraisable.exc_value
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        _stop_at_once(getattr(error, "exit_code", 130) - 128, None)
    sys.__unraisablehook__(unraisable)


def _stop_at_once(number: int, frame: FrameType | None) -> None:
    say_in_handler(f"stopped at once; what was finished is kept, and {GOES_ON}")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
