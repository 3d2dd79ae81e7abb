"""What a person clicks on a run's page to walk the chain: the runs that made what it read, and its statement."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from flows.provenance import statements
from flows.tracking import names

if TYPE_CHECKING:
    from flows.tracking.ledger import Ledger

STATEMENT, NOTE = "statement.json", "mlflow.note.content"
LINKS = 40  # to other runs: a tag holds 8000 characters


def link(ledger: Ledger, run: str, stage: dict) -> None:
    """Describe a run by links, and attach the statement of its stage's command; not again where that was done."""
    client, stated, tags = ledger.client, _stated(stage), ledger.client.get_run(run).data.tags
    if NOTE in tags and (stated is None or tags.get("statement") == stated.sha256):
        return
    runs = f"#/experiments/{ledger.experiment}/runs/"
    made = list(dict.fromkeys(one for dep in stage["deps"] for one in _makers(ledger, dep)))
    more = f" and {len(made) - LINKS} more" if len(made) > LINKS else ""
    shown = ", ".join(f"[{name}]({runs}{maker})" for name, maker in made[:LINKS])
    lines = [f"Made from {shown or 'its params alone'}{more}."]
    if stated:
        client.log_text(run, stated.content.decode(), STATEMENT)
        keys = ", ".join(name for name, _ in stated.signatures)
        signed = f"signed by {keys}" if keys else "not signed"
        lines.append(f"[The statement of its command]({runs}{run}/artifacts/{STATEMENT}), {signed}: {stated.sha256}.")
    ledger.log(run, tags={NOTE: "\n\n".join(lines)} | ({"statement": stated.sha256} if stated else {}))


def _makers(ledger: Ledger, dep: dict) -> list[tuple[str, str]]:
    """(stage, run) of the runs that made what lies at a dependency."""
    found = []
    for content in ledger.contents.of(dep["path"], dep["md5"]) if names.is_data(dep["path"]) else []:
        if content not in ledger.makers:
            path, sha256 = content
            for run in ledger.client.search_runs([ledger.experiment], f"tags.`{path}` = '{sha256}'", max_results=1):
                ledger.makers[content] = (run.info.run_name, run.info.run_id)
        found += [ledger.makers[content]] if content in ledger.makers else []
    return found


def _stated(stage: dict) -> statements.Stated | None:
    """The last statement about exactly this result, in the folders where those of the stage lie."""
    found = []
    for path in (path for folder in stage.get("statements", ()) for path in Path(folder).glob("*.json")):
        with contextlib.suppress(ValueError, OSError):  # damaged, which `roads verify` tells; or moved meanwhile
            found.append(statements.parse(path.read_bytes()))
    fitting = [one for one in found if not statements.unlike(one, stage)]
    return max(fitting, key=lambda one: (one.finished, one.content), default=None)
