"""Where the numbers of a study's page come from: a panel for each arm and each reward model of a setting, and for what
the setting shares. They show what the page was made from; all that this goes back to, `roads lineage` knows."""

from stages.evidence.panels import Artifact, Panel, key
from stages.evidence.study import cells
from stages.evidence.study.cells import Study
from stages.evidence.study.comparison import Comparison
from stages.evidence.words import inline
from stages.records import artifacts


def panels(study: Study, settings: list[Comparison]) -> list[Panel]:
    """Every panel of the page."""
    theory = _made("data/theory", artifacts.digest("data/theory"), "theory")
    found = [
        Panel(key("params"), "Params", [("params.yaml", "what a person wrote")], [], [], "roads study"),
        Panel(key("theory"), "The theory, exactly", [("theory", "in params.yaml")], [theory]),
    ]
    for one in settings:
        models = [(key("judge", one.name, name), f"the {name} reward model") for name in one.judged]
        of_arms = [(key("arm", one.name, arm), arm) for arm in study.arms]
        found += [_shared(one, of_arms + models), *_leads(one), *(_arm(one, arm) for arm in study.arms)]
        found += [_judge(one, name) for name in one.judged]
    return found


def _shared(one: Comparison, others: list[tuple[str, str]]) -> Panel:
    """What a setting is: its data, and the judge that stands for the true reward where there is one."""
    found = {path: digest for path, (digest, _) in cells.shared(one.study, "corpus", one.name).items()}
    if one.world.facts.truth is None:
        path, (digest, _) = next(iter(cells.shared(one.study, "base", one.name).items()))
        found[path] = digest
    made = [_made(path, digest, cells.maker(path)) for path, digest in found.items()]
    return Panel(key("setting", one.name), one.name, _params(one, "corpus", "preferences"), made, others)


def _leads(one: Comparison) -> list[Panel]:
    """What the headlines of a setting compare; none of a study that compares nothing."""
    compared = [arm for arm in dict.fromkeys([*(one.study.contrast or ()), one.study.best_of]) if arm]
    models = dict.fromkeys(one.study.recipe(one.name, arm).get("labels") for arm in compared)
    others = [(key("arm", one.name, arm), arm) for arm in compared]
    others += [(key("judge", one.name, name), f"the {name} reward model") for name in models if name in one.judged]
    return [Panel(key("lead", one.name), f"What is compared in {one.name}", [], [], others)] if others else []


def _arm(one: Comparison, arm: str) -> Panel:
    """An arm: its evaluation in each seed and, of one that was trained, its policy, which has the learning curve."""
    study, made = one.study, []
    for seed, cell in zip(study.seeds, one.cells[arm], strict=True):
        for (path, digest), stage in zip(cell.artifacts.items(), (study.made_by(arm), study.kind(arm))):
            made.append(_made(path, digest, f"{stage}@{one.name}-{seed}-{arm}"))
    sections = _params(one, f"arms.{arm}", "evaluate", "compute")
    return Panel(key("arm", one.name, arm), f"{arm} in {one.name}", sections, made, _setting(one))


def _judge(one: Comparison, name: str) -> Panel:
    """A reward model, as it was judged in each seed."""
    made = [
        _made(path, digest, f"judge@{one.name}-{seed}-{name}")
        for seed, cell in zip(one.study.seeds, one.judged[name], strict=True)
        for path, digest in cell.artifacts.items()
    ]
    sections = _params(one, f"verifiers.{name}", "preferences", "compute")
    return Panel(key("judge", one.name, name), f"The {name} reward model in {one.name}", sections, made, _setting(one))


def _setting(one: Comparison) -> list[tuple[str, str]]:
    return [(key("setting", one.name), f"the data of {one.name}")]


def _params(one: Comparison, *sections: str) -> list[tuple[str, str]]:
    found = []
    for section in sections:
        name, _, entry = section.partition(".")
        values = one.study.params[one.name][name]
        found.append((f"settings.{one.name}.{section}", inline(values[entry] if entry else values)))
    return found


def _made(path: str, digest: str, stage: str) -> Artifact:
    return Artifact(path, f"{artifacts.MANIFEST} sha256 {digest}", stage)
