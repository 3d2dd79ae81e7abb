"""data/report/lineage.html: of every stage what fed it, what it ran, and at which commit and on which machine.

The numbers of report.html lead here by the names of their stages. It is about git and hosts, so no out of DVC's is.
"""

from pathlib import Path

from flows.pages import fill
from flows.pipeline.graph import Graph
from flows.provenance.lineage import Study
from flows.provenance.making import identity
from stages.evidence.words import inline
from stages.records.artifacts import write_file

PAGE = Path("data/report/lineage.html")
LONG = 2000  # characters of the params of one stage; the report depends on all of a study's


def write(graph: Graph) -> None:
    """Write the page. Raises UserError where dvc.lock, or what a study has published, cannot be read."""
    study = Study(graph)
    found = study.lineage(name for name in study.stages if name != "check")
    codes: dict[tuple, str] = {}  # many stages run the same code
    platforms, rows = {}, []
    nodes = [node for node in found.nodes.values() if ": " not in node.id]  # not the stages of published studies
    for node in sorted(nodes, key=lambda node: node.id):
        ran = (tuple(node.code.items()), tuple(node.packages.items()))
        made = [one | {"id": identity(one["platform"])} for one in node.made if one["platform"]]
        platforms |= {one["id"]: one["platform"] for one in made}
        params = [(name, inline(value)) for name, value in node.params.items()]
        rows.append(
            {
                "node": node,
                "code": codes.setdefault(ran, f"code-{len(codes) + 1}") if any(ran) else "",
                "made": made,
                "params": [(name, said if len(said) < LONG else f"{said[:LONG]} …") for name, said in params],
            }
        )
    shown = {node.id for node in nodes}
    write_file(graph.root / PAGE, fill("lineage.html", rows=rows, codes=codes, platforms=platforms, shown=shown))
