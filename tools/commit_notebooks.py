"""Make what the last quick build found ready to commit: verdicts, expected numbers, and the README's findings.

The notebooks keep no output but the checked cells'. ``tests/expected/<notebook>.json`` holds the
estimates that the tests compare a later build with. The README's table is made of the published outcomes and, of
notebooks that have none, of those expected files.
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path

import nbformat

from fisherbook.publishing import profiles
from fisherbook.publishing.outcomes import OUTCOME

ROOT = Path(__file__).parents[1]
EXPECTED = ROOT / "tests" / "expected"
CHECKED = "# NBVAL_CHECK_OUTPUT"
KEPT = ("sentence", "rule", "value", "standard_error", "dof", "number", "verdict")
BEGIN, END = "<!-- findings: `make notebooks` writes what follows -->\n", "<!-- end of findings -->"
HEAD = "| Claim | Estimate [95 % interval] | Verdict |\n|---|---|---|"


def is_checked(cell):
    """Whether a cell's output is compared when the tests execute its notebook."""
    return cell.cell_type == "code" and cell.source.startswith(CHECKED)


def ready(notebook, outcome=None):
    """Return a notebook without outputs but the checked cells', which print the verdicts of an outcome if given."""
    notebook = nbformat.from_dict(notebook)
    lines = "".join(f"{row['sentence']}: {row['verdict']}\n" for row in (outcome or {"findings": []})["findings"])
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in ("tags", "mystnb")}
        if cell.cell_type == "code":
            kept = [output for output in cell.outputs if is_checked(cell) and output.output_type == "stream"]
            made = [nbformat.v4.new_output("stream", name="stdout", text=lines)] if lines and is_checked(cell) else kept
            # nbval takes a cell that has outputs, but was never run, for a mistake
            cell.outputs, cell.execution_count = made, 1 if made else None
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def expected(outcome):
    """Return what is kept of an outcome, to compare later ones with."""
    rows = [{name: row[name] for name in KEPT} for row in outcome["findings"]]
    return {name: outcome[name] for name in ("notebook", "profile", "parameters")} | {"findings": rows}


def outcomes():
    """Yield the outcome of each notebook with findings, in the book's order: published, or else expected."""
    for name in profiles.notebooks(ROOT / "book"):
        places = (ROOT / "data" / "results" / name / OUTCOME, EXPECTED / f"{name}.json")
        if path := next(filter(Path.is_file, places), None):
            yield json.loads(path.read_text(encoding="utf-8"))


def title(name):
    cells = nbformat.read(ROOT / "book" / f"{name}.ipynb", as_version=4).cells
    return re.search(r"^# +(.+)$", "\n".join(cell.source for cell in cells), re.MULTILINE)[1]


def row(finding, before=""):
    claim = finding["sentence"].replace("|", r"\|")
    return f"| {before}{claim} | {finding['number']} | {finding['verdict']} |"


def findings_table(found):
    """Return the README's part on findings: a count, each page's first claim, and the others folded."""
    found = [outcome for outcome in found if outcome["findings"]]
    verdicts = Counter(finding["verdict"] for outcome in found for finding in outcome["findings"])
    words = {"holds": "hold", "does not hold": "do not hold", "not settled": "are not settled"}
    count = ", ".join(f"{verdicts[v]} {told}" for v, told in words.items() if verdicts[v])
    makers = sorted({outcome["profile"] for outcome in found})
    leads, others = [], []
    for outcome in found:
        page = f"[{title(outcome['notebook'])}](book/{outcome['notebook']}.ipynb)"
        made = f" ({outcome['profile']})" if len(makers) > 1 else ""
        lead, *more = (row(finding, f"{page}{made}: ") for finding in outcome["findings"])
        leads, others = [*leads, lead], [*others, *more]
    by = " and ".join(f"**{profile}**" for profile in makers)
    lines = [f"{verdicts.total()} claims, decided with the {by} parameters: {count}. The first of each page:", ""]
    lines += [HEAD, *leads, "", f"<details><summary>The other {len(others)} claims</summary>", ""]
    return "\n".join([*lines, HEAD, *others, "", "</details>", ""])


def with_findings(readme, found):
    """Return the README's text with the part on findings made anew."""
    before, _, rest = readme.partition(BEGIN)
    return before + BEGIN + "\n" + findings_table(found) + "\n" + END + rest.partition(END)[2]


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    quick = ROOT / "_build" / "executed" / "quick"
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        built = quick / "results" / path.stem / OUTCOME
        outcome = json.loads(built.read_text(encoding="utf-8")) if built.is_file() else {"findings": []}
        nbformat.write(ready(nbformat.read(path, as_version=4), outcome), path)
        if outcome["findings"]:
            text = json.dumps(expected(outcome), indent=1, ensure_ascii=False)
            (EXPECTED / f"{path.stem}.json").write_text(text + "\n", encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_findings(readme.read_text(encoding="utf-8"), outcomes()), encoding="utf-8")


if __name__ == "__main__":
    main()
