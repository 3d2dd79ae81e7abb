"""A lineage for people and for programs: a tree in a terminal, a drawing, JSON, and PROV of the W3C."""

import json
from collections import defaultdict
from dataclasses import asdict
from html import escape
from typing import Any

from flows.provenance.nodes import Lineage, Node

WIDTH, HEIGHT, APART, BETWEEN = 250, 52, 14, 90  # of a box and the gaps around it, in pixels
COLOURS = {"stage": "#0068a8", "claim": "#a2408f", "study": "#a2408f", "lost": "#d04a00"}  # of a box's edge
PROJECT = "urn:all-roads:"


def tree(lineage: Lineage) -> str:
    """Each node once, below what it fed; and what is known of those that were asked for."""
    lines: list[str] = []
    seen: set[str] = set()

    def add(name: str, first: str, rest: str) -> None:
        node = lineage.nodes[name]
        if name in seen:
            lines.append(f"{first}{name} (see above)")
            return
        lines.append(f"{first}{_line(node)}")
        seen.add(name)
        for at, fed in enumerate(node.inputs):
            last = at == len(node.inputs) - 1
            add(fed, f"{rest}{'└─ ' if last else '├─ '}", f"{rest}{'   ' if last else '│  '}")

    for root in lineage.roots:
        add(root, "", "")
    about = [line for root in lineage.roots[:3] for line in _about(lineage.nodes[root])]
    return "\n".join([*lines, "", *about])


def _line(node: Node) -> str:
    """A node in a line: what it is, where it lies, its hash, its commit."""
    path = next(iter(node.outs), "")
    parts = [node.id] if node.kind in ("stage", "claim", "study") else [node.id.removesuffix(f" {node.outs.get(path)}")]
    parts += [path] if node.kind == "stage" and path else []
    parts += [f"+{len(node.outs) - 1} more"] if len(node.outs) > 1 else []
    parts += [f"md5 {node.outs[path][:12]}"] if node.outs.get(path) else []
    parts += [_commit(node.made[0])] if node.made else []
    if node.kind == "stage":
        parts += ["signed" if node.statement.get("signed by") else "stated"] if node.statement else ["no statement"]
        parts += [] if node.inputs else ["(from its params alone)"]
    return "  ".join(parts + ([f"({node.said})"] if node.said else []))


def _commit(made: dict[str, Any]) -> str:
    return (
        f"commit {made['commit'][:12]}{'' if made.get('clean') else ' (edited)' if made.get('clean') is False else ''}"
    )


def _about(node: Node) -> list[str]:
    """All else that is known of one node."""
    lines = [f"{node.id}"]
    lines += [f"  command   {node.command}"] if node.command else []
    lines += [f"  params    {name}: {json.dumps(value, default=str)[:300]}" for name, value in node.params.items()]
    lines += [f"  sha256    {found}  {path}" for path, found in node.sha256.items()]
    if node.code:
        lines.append(
            f"  code      {len(node.code)} modules, each with its SHA-256 in --json: {', '.join(node.code)[:160]} ..."
        )
    if node.packages:
        lines.append(f"  packages  {', '.join(f'{name} {version}' for name, version in node.packages.items())}")
    for made in node.made:
        host = ", ".join(f"{k} {v}" for k, v in made.get("platform", {}).items() if k.islower() and k != "instructions")
        lines.append(
            f"  made      {' '.join(filter(None, [made.get('when', ''), _commit(made)]))}{f': {host}' if host else ''}"
        )
    if node.statement:
        keys = ", ".join(node.statement["signed by"]) or "no key"
        lines.append(
            f"  stated    {node.statement['sha256']}, signed by {keys}; `roads verify` says whether to trust it"
        )
    return lines if len(lines) > 1 else []


def as_json(lineage: Lineage) -> str:
    """One JSON document: the ids of what was asked for, and all nodes by id."""
    nodes = {name: asdict(node) for name, node in lineage.nodes.items()}
    return json.dumps({"roots": lineage.roots, "nodes": nodes}, indent=1, default=str)


def svg(lineage: Lineage) -> str:
    """A drawing: raw data on the left, what was asked for on the right, every node after all that fed it.

    A line is left out where a longer way says the same.
    """
    columns, place = _columns(lineage), {}
    tallest = max(map(len, columns))
    for x, column in enumerate(columns):
        above = (tallest - len(column)) * (HEIGHT + APART) / 2
        for y, name in enumerate(column):
            place[name] = (10.0 + x * (WIDTH + BETWEEN), 10 + above + y * (HEIGHT + APART))
    wide, high = len(columns) * (WIDTH + BETWEEN) - BETWEEN + 20, tallest * (HEIGHT + APART) - APART + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high:g}" width="{wide}" height="{high:g}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f"<title>What fed {escape(', '.join(lineage.roots))}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for name in lineage.nodes:
        right, down = place[name]
        for fed in _direct(lineage, name):
            left, up = place[fed][0] + WIDTH, place[fed][1] + HEIGHT / 2
            middle, end = (left + right) / 2, down + HEIGHT / 2
            path = f"M{left:g},{up:g} C{middle:g},{up:g} {middle:g},{end:g} {right:g},{end:g}"
            parts.append(f'<path d="{path}" fill="none" stroke="#8a94a0" stroke-opacity=".6"/>')
    for name, node in lineage.nodes.items():
        left, up = place[name]
        heavy = 2.5 if name in lineage.roots else 1.2
        colour = COLOURS.get(node.kind, "#5b6470")
        out, value = next(iter(node.outs.items()), ("", ""))
        lines = [(name if node.kind == "stage" else out or name, "#16191d", 600)]
        lines.append((out if node.kind == "stage" else node.said, "#5b6470", 400))
        lines.append((f"md5 {value[:16]}" if value else "", "#5b6470", 400))
        parts.append(f'<g transform="translate({left:g},{up:g})"><title>{escape(_line(node))}</title>')
        parts.append(
            f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#f6f7f9" stroke="{colour}" stroke-width="{heavy}"/>'
        )
        for at, (text, ink, weight) in enumerate(lines):
            shown = text if len(text) <= 38 else f"{text[:36]}…"
            parts.append(f'<text x="8" y="{16 + 15 * at}" fill="{ink}" font-weight="{weight}">{escape(shown)}</text>')
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def _direct(lineage: Lineage, name: str) -> list[str]:
    """The inputs of a node but those that fed another of its inputs, too: with all lines nothing could be seen."""
    inputs = lineage.nodes[name].inputs
    return [one for one in inputs if not any(one in _behind(lineage, other, {}) for other in inputs if other != one)]


def _behind(lineage: Lineage, name: str, seen: dict[str, None]) -> dict[str, None]:
    """All that fed a node."""
    for fed in lineage.nodes[name].inputs:
        if fed not in seen:
            seen[fed] = None
            _behind(lineage, fed, seen)
    return seen


def _columns(lineage: Lineage) -> list[list[str]]:
    """The nodes by how many steps lie between them and raw data, each column in an order that crosses few lines."""
    depth: dict[str, int] = {}

    def deep(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max(map(deep, lineage.nodes[name].inputs), default=-1)
        return depth[name]

    columns: dict[int, list[str]] = defaultdict(list)
    for name in lineage.nodes:
        columns[deep(name)].append(name)
    order = [columns[at] for at in sorted(columns)]
    fed_by = {name: node.inputs for name, node in lineage.nodes.items()}
    feeds: dict[str, list[str]] = defaultdict(list)
    for name, inputs in fed_by.items():
        for one in inputs:
            feeds[one].append(name)
    for neighbours, columns_now in ((fed_by, order), (feeds, order[::-1]), (fed_by, order)):
        row = {name: at / len(column) for column in order for at, name in enumerate(column)}
        for column in columns_now:
            mean = {
                name: sum(row[n] for n in neighbours[name]) / len(neighbours[name]) if neighbours[name] else row[name]
                for name in column
            }
            column.sort(key=lambda name: mean[name])
            row |= {name: at / len(column) for at, name in enumerate(column)}
    return order


def prov(lineage: Lineage) -> str:
    """PROV-JSON (W3C member submission of 2013): each out an entity, each stage an activity, the project an agent."""
    found: dict[str, dict[str, Any]] = {
        kind: {} for kind in ("entity", "activity", "used", "wasGeneratedBy", "wasDerivedFrom", "wasAssociatedWith")
    }
    agent = "roads:stages"

    def entities(name: str) -> list[str]:
        node = lineage.nodes[name]
        return [f"roads:{name}/{path}" if node.kind == "stage" else f"roads:{name}" for path in node.outs] or [
            f"roads:{name}"
        ]

    for name, node in lineage.nodes.items():
        outs = entities(name)
        for id, path in zip(outs, node.outs or {"": ""}, strict=True):
            about = {
                "roads:path": path,
                "roads:md5": node.outs.get(path, ""),
                "roads:sha256": node.sha256.get(path, ""),
            }
            found["entity"][id] = {"prov:label": node.said or path or name} | {
                key: value for key, value in about.items() if value
            }
        if node.kind not in ("stage", "claim", "study"):
            continue
        activity, made = f"roads:run/{name}", node.made[0] if node.made else {}
        times = {"prov:startTime": node.statement.get("started"), "prov:endTime": node.statement.get("finished")}
        about = {"prov:label": name, "roads:command": node.command, "roads:commit": made.get("commit"), **times}
        found["activity"][activity] = {key: value for key, value in about.items() if value}
        found["wasAssociatedWith"][f"_:a{len(found['wasAssociatedWith'])}"] = {
            "prov:activity": activity,
            "prov:agent": agent,
        }
        for id in outs:
            found["wasGeneratedBy"][f"_:g{len(found['wasGeneratedBy'])}"] = {
                "prov:entity": id,
                "prov:activity": activity,
            }
        for used in dict.fromkeys(one for fed in node.inputs for one in entities(fed)):
            found["used"][f"_:u{len(found['used'])}"] = {"prov:activity": activity, "prov:entity": used}
            for id in outs:
                derived = {"prov:generatedEntity": id, "prov:usedEntity": used, "prov:activity": activity}
                found["wasDerivedFrom"][f"_:d{len(found['wasDerivedFrom'])}"] = derived
    document = {
        "prefix": {"roads": PROJECT},
        "agent": {agent: {"prov:type": {"$": "prov:SoftwareAgent", "type": "prov:QUALIFIED_NAME"}}},
    }
    return json.dumps(document | {kind: entries for kind, entries in found.items() if entries}, indent=1)
