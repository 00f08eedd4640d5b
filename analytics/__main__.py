"""`python -m analytics`: ask a lake of Parquet files, and check it, without an exchange.

Separate because it is for people who have a lake and nothing else: a copy on a laptop, a bucket.
A composition root; what it does is in cli.py.
"""

from __future__ import annotations

import typer

from analytics import cli
from analytics.cli_compact import add_compact

LAKE_USUAL = "./data/lake"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Ask a lake of deals, orders, balances and bars, and check that it agrees with itself.",
    epilog='Begin with: python -m analytics sql "DESCRIBE deals"',
)
ROOT = cli.Root(
    program="python -m analytics",
    care="python -m analytics",
    place=typer.Option(
        None,
        "--lake",
        envvar="EXCORE_LAKE",
        show_envvar=False,
        help=f"Path or URL of the lake.  [EXCORE_LAKE, default {LAKE_USUAL}]",
    ),
    locate=lambda said: said or LAKE_USUAL,
)
cli.add_questions(app, ROOT)
cli.add_care(app, ROOT)
# A copy on a laptop has no archive.  If there is one after all, the commit that comes second is
# refused, and either begins anew.
add_compact(app, ROOT, lambda said: False)


def main() -> None:
    """The command line."""
    app(prog_name=ROOT.program)


if __name__ == "__main__":
    main()
