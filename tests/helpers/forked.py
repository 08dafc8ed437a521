"""Starts commands at once: a process that has imported everything forks one for each it is asked.

Run as a script: a line of JSON says what to start, two lines answer with its number and its end.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import traceback

HEAVY = (
    "mitolume.workflow", "mitolume.batch.predict", "mitolume.batch.measure", "mitolume.batch.label",
    "mitolume.runs.denoiser", "mitolume.training.denoise_training", "mitolume.report.run_tables",
    "mitolume.report.study_page", "pyarrow.parquet",
)  # fmt: skip


def run(words: list[str], folder: str, log: str, most_bytes: int | None) -> None:
    """Be the command; ``most_bytes`` is the largest file that can be written, as on a full disk."""
    from mitolume import cli

    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(said, stream)
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        sys.argv = ["mitolume", *words]
        cli.main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Answer until there are no more lines."""
    for name in ("mitolume.cli", *HEAVY):
        importlib.import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if not (number := os.fork()):
            run(**asked)
        print(number, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
