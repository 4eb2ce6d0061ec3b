"""The command line: `python -m compression COMMAND`; `--help` lists the commands.

A mistake in what was asked for ends in one line on standard error and exit status 2.
"""

import sys

import typer
from typer.exceptions import TyperException

from compression.cli.allocate import allocate_command
from compression.cli.compress import prune_command, quantize_command
from compression.cli.download import download_command
from compression.cli.front import front_command
from compression.cli.measure import compare_command, evaluate_command, scan_command
from compression.cli.pack import inspect_command, pack_command, unpack_command
from compression.cli.reproduce import reproduce_command
from compression.cli.shrink import shrink_command
from compression.cli.study import study_command
from compression.cli.train import average_command, shard_command, train_command
from compression.inputs import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="GridMask, magnitude pruning and k-means quantization of a ResNet-9 on CIFAR-10.",
)
app.command("train")(train_command)
app.command("average")(average_command)
app.command("shard")(shard_command)
app.command("evaluate")(evaluate_command)
app.command("scan")(scan_command)
app.command("prune")(prune_command)
app.command("quantize")(quantize_command)
app.command("compare")(compare_command)
app.command("allocate")(allocate_command)
app.command("front")(front_command)
app.command("pack")(pack_command)
app.command("unpack")(unpack_command)
app.command("inspect")(inspect_command)
app.command("shrink")(shrink_command)
app.command("study")(study_command)
app.command("reproduce")(reproduce_command)
app.command("download")(download_command)


def main() -> None:
    """Run the command line."""
    try:
        sys.exit(app(standalone_mode=False))
    except TyperException as error:  # a wrong word or type on the command line
        _refuse(error.format_message())  # empty without any word: the help is shown already
    except (InputError, OSError) as error:  # OSError: a full disk, a folder without permission
        _refuse(str(error))


def _refuse(why: str) -> None:
    if why:
        typer.echo(f"Error: {' '.join(why.splitlines())}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
