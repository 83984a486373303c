"""The `lathe` command. Each subcommand imports what it needs when it runs, and nothing before."""

from __future__ import annotations

import argparse
import sys
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
        The exit code: 0 done, 1 an error that one line on standard error tells, 2 a wrong command line.
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
    try:
        return run(options) or 0
    except LatheError as error:
        print(f"lathe: {error.message}", file=sys.stderr)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(f'lathe: this needs {error.name}: install Lathe with its extra "{extra}"', file=sys.stderr)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:  # a full disk, a folder that may not be written: the user's to mend
        if error.strerror is None:
            raise
        print(f"lathe: {error.strerror}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
    return EXIT_ERROR
