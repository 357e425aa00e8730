"""The ``fisherbook`` command: arguments in, a sentence out; what it does is in `execute` and `reports`."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from .. import checks

try:
    from . import execute, profiles, reports
except ModuleNotFoundError as missing:  # the package alone, without the tools of the book
    sys.exit(str(checks.not_installed("fisherbook: the command", missing, "book")))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 if a notebook or the site fails, 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        print(options.action(options))
        return 0
    except KeyboardInterrupt:
        failure, code = "interrupted; what was computed until now is kept", 130
    except RuntimeError as error:
        failure, code = error, 1
    except (ValueError, OSError) as error:
        failure, code = error, 2
    print(f"fisherbook: {failure}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("fisherbook", description="Rerun the book, or one of its notebooks.")
    parser.add_argument("--version", action="version", version=f"fisherbook {version('fisherbook')}")
    actions = parser.add_subparsers(required=True, metavar="list | run | sweep | compare | build | publish | verify")
    profile = argparse.ArgumentParser(add_help=False)
    profile.add_argument("--profile", default="quick", help=f"{', '.join(profiles.PROFILES)} (default: quick)")
    listing = actions.add_parser("list", help="name the notebooks and their parameters")
    listing.set_defaults(action=lambda _: profiles.describe())
    run = actions.add_parser("run", parents=[profile], help="execute one notebook, on a page of its own")
    run.add_argument("notebook", help="its name, such as roughness")
    run.add_argument("-p", dest="settings", action="append", default=[], metavar="name=value")
    run.set_defaults(action=lambda o: reports.rerun(o.notebook, o.settings, o.profile))
    over = "execute one notebook over a grid: give -p name=value for each value"
    sweep = actions.add_parser("sweep", parents=[profile], help=over)
    sweep.add_argument("notebook", help="its name, such as roughness")
    sweep.add_argument("-p", dest="settings", action="append", default=[], metavar="name=value")
    sweep.set_defaults(action=lambda o: reports.sweep(o.notebook, o.settings, o.profile))
    compare = actions.add_parser("compare", help="lay two runs of a notebook side by side")
    compare.add_argument("runs", nargs=2, metavar="run", help="a page made by run, or such as quick/roughness")
    compare.set_defaults(action=lambda o: reports.compare(*o.runs))
    build = actions.add_parser("build", parents=[profile], help="execute what has changed and build the site")
    build.add_argument("--fresh", action="store_true", help="compute even what data/results has")
    build.set_defaults(action=lambda o: execute.build(o.profile, fresh=o.fresh))
    published = actions.add_parser("publish", help="compute published results of these notebooks, for data/results")
    published.add_argument("notebooks", nargs="+", metavar="notebook")
    published.set_defaults(action=lambda o: execute.compute_published(o.notebooks))
    verify = actions.add_parser("verify", help="compute a small piece of published results again, and compare")
    verify.add_argument("notebooks", nargs="*", metavar="notebook", help="by default all")
    verify.set_defaults(action=lambda o: reports.verify(o.notebooks))
    return parser
