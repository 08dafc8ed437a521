"""The page of commands, made from the command line itself whenever the site is built."""

from mkdocs.structure.files import File
from typer.cli import get_docs_for_click
from typer.main import get_command

import typer
from mitolume.cli import app


def on_files(files, config):
    """Add commands.md."""
    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="mitolume")
    _, *sections = text.split("\n## ")  # the list before them is the table of contents again
    files.append(File.generated(config, "commands.md", content="\n## ".join(["# Commands\n", *sections])))
    return files
