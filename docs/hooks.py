"""What the site adds to the pages whenever it is built."""

import re

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from typer.cli import get_docs_for_click

import typer
from mitolume.cli import command_line


def on_files(files, config):
    """Add commands.md, the page of commands, made from the command line itself."""
    command = command_line()
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="mitolume")
    _, *sections = text.split("\n## ")  # the list before them is the table of contents again
    files.append(File.generated(config, "commands.md", content="\n## ".join(["# Commands\n", *sections])))
    return files


def on_page_markdown(markdown, page, **_):
    """Keep a number and its unit on one line, and see that lists are read as they were meant."""
    if broken := re.search(r"(?m)^ {1,3}```.*", markdown):
        raise PluginError(f"{page.file.src_uri}: indent what belongs to a list by four spaces: {broken[0]}")
    parts = re.split(r"(```.*?```|`[^`]*`)", markdown, flags=re.DOTALL)
    parts[::2] = [re.sub(r"(?<=\d) (?=%|(px|[µn]?m)\b)", "\u00a0", part) for part in parts[::2]]
    return "".join(parts)


def on_post_page(output, page, **_):
    """See that no request leaves the reader's machine."""
    if asked := re.search(r'<(script|link|img)[^>]* (src|href)="?http[^>]*', output):
        raise PluginError(f"{page.file.src_uri} would load something from another machine: {asked[0]}")
    return output
