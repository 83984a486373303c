"""The `lathe` command. Each subcommand imports what it needs when it runs, and nothing before."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence

from lathe.cli import (
    apply,
    compress,
    ctl,
    demo,
    evaluate,
    experiment,
    gallery,
    load,
    load_compare,
    plan,
    repo,
    report,
    serve,
    stream,
    token,
    top,
)
from lathe.errors import LatheError

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130
_EXTRAS = {"torch": "compression", "onnx": "compression", "hdrh": "load", "hpack": "load", "cryptography": "gallery"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        The exit code: 0 done, 1 an error that one line on standard error tells (another where 1 means something else
        to a command, which says so as its `error_code`), 2 a wrong command line.
    """
    parser = argparse.ArgumentParser(
        prog="lathe", description="Vision inference on compressed models, swapped while they serve."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    modules = (
        compress,
        evaluate,
        report,
        serve,
        stream,
        load,
        load_compare,
        plan,
        top,
        ctl,
        apply,
        experiment,
        gallery,
        repo,
        token,
        demo,
    )
    for module in modules:
        module.add_command(commands)
    experiment.add_rollout(commands)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if tuple(words[:2]) == load_compare.WORDS:
        words[:2] = [" ".join(words[:2])]
    options = parser.parse_args(words)
    run: Callable[[argparse.Namespace], int | None] = options.run
    error_code = getattr(options, "error_code", EXIT_ERROR)
    try:
        return run(options) or 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
    except Exception as error:
        line = _told(error)
        if line:
            print(f"lathe: {line}", file=sys.stderr)
        elif error_code == EXIT_ERROR:  # which Python's own would be, too
            raise
        else:
            traceback.print_exc()
    return error_code


def _told(error: Exception) -> str:
    """What the user can mend, in a line; empty for what is a mistake of Lathe's."""
    if isinstance(error, LatheError):
        return error.message
    if isinstance(error, ModuleNotFoundError):
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        return f'this needs {error.name}: install Lathe with its extra "{extra}"' if extra else ""
    if isinstance(error, OSError) and error.strerror:  # a full disk, a folder that may not be written
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
    return ""
