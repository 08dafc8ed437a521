"""The command line: each command is one call. Heavy imports wait until a command needs them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from mitolume.cli import images, masks, models
from mitolume.cli.process import keep_buffers, run_safely

app = typer.Typer(
    name="mitolume",
    help="Segment mitochondria in label-free microscopy from a handful of labelled fields.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class _Command(TyperCommand):
    """A command whose flags have no opposites: there is --quiet and no --no-quiet."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        for parameter in self.params:
            parameter.secondary_opts = []


class _RunByDefault(TyperGroup):
    """`mitolume study RECIPE` is `mitolume study run RECIPE`; other commands have their names."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


COMMANDS: dict[str, Callable[..., None]] = {  # in the order of --help
    "demo": models.demo,
    "sample": images.sample,
    "inspect": images.inspect,
    "fields": images.fields,
    "run": models.run,
    "rerun": models.rerun,
    "predict": models.predict,
    "export": models.export,
    "import": models.import_,
    "evaluate": masks.evaluate,
    "label": masks.label,
    "convert": masks.convert,
    "measure": masks.measure,
    "compare": masks.compare,
    "focus": images.focus,
    "suggest": models.suggest,
    "simulate": images.simulate,
    "report": models.report,
}
STUDY: dict[str, Callable[..., None]] = {"run": models.study_run, "status": models.study_status}
DENOISE: dict[str, Callable[..., None]] = {
    "check": images.denoise_check,
    "train": images.denoise_train,
    "apply": images.denoise_apply,
}
_PLACES = ("out", "export", "consensus", "crops", "rois", "labels", "pictures")  # to write to
_PREDICT = ("demo", "run", "study", "predict", "denoise", "suggest", "rerun")


def _after_trying(command: Callable[..., None]) -> Callable[..., None]:
    """Try the places and the device that the options of a command name, before it does anything."""

    @wraps(command)
    def call(**given: Any) -> None:
        from mitolume.io.write import require_folder

        for place in (given.get(name) for name in _PLACES):
            if isinstance(place, Path):
                require_folder(place.parent if place.suffix else place)
        # Of a cluster, the workers have it; where runs are computed here, it must be here.
        if given.get("device") not in (None, "cpu") and not given.get("scheduler"):
            from mitolume.models.networks import find_device

            find_device()
        command(**given)

    return call


study = typer.Typer(
    cls=_RunByDefault, no_args_is_help=True, help="Compare ways of training over several seeds."
)
denoise = typer.Typer(no_args_is_help=True, help="Remove noise from z-stacks without clean images.")
for group, commands in (app, COMMANDS), (study, STUDY), (denoise, DENOISE):
    for name, command in commands.items():
        group.command(name, cls=_Command)(command if name == "sample" else _after_trying(command))
app.add_typer(study, name="study")
app.add_typer(denoise, name="denoise")


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if context.invoked_subcommand in _PREDICT:
        keep_buffers()
    if version:
        from mitolume import __version__

        print(__version__)
        raise typer.Exit


@cache
def command_line() -> Any:
    """Return all commands with their options, as click knows them. Typer takes 50 ms for it."""
    return get_command(app)


def main() -> None:
    """Run the command line."""
    run_safely(lambda: command_line()())
