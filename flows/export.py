"""`roads export ARM --to FOLDER`: the policy of an arm as a model folder that transformers loads, with a model card.

Weights, config and tokenizer are the artifact's, byte for byte, and only what is up to date and as recorded goes out.
generation_config.json is written anew: by it `generate` draws completions as the evaluation drew them, from all tokens
at its temperature, as long as the world's, and never padding, which has no probability within the project.
"""

import errno
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from flows.pipeline.content import differences
from flows.pipeline.graph import Graph
from flows.plan import plan
from flows.sources import MODEL_FILES
from stages.records import arms, artifacts, plain
from stages.records.errors import UserError

NOT_OF_A_MODEL = {artifacts.MANIFEST, artifacts.VERIFIER, "metrics.json"}
GENERATION, SIGNATURE = "generation_config.json", "model.sig"


class Policy(NamedTuple):
    """A policy of a study, as it lies here."""

    study: str  # "" for that of params.yaml
    setting: str
    seed: int
    arm: str
    folder: Path  # of the artifact
    stage: str  # that makes it
    cell: dict  # of its evaluation in cells.yaml
    default: str  # what was not asked for and chosen, as a sentence

    @property
    def again(self) -> str:
        """The command that makes it."""
        return f"roads run {f'--study {self.study} ' if self.study else ''}--stages {self.stage}"


def export(graph: Graph, policy: Policy, folder: Path, key: Path | None = None) -> dict[str, str]:
    """Write the policy into ``folder``, at once and whole, with a bundle of OpenSSF model signing by a private key if
    there is one; SHA-256 of each file by its name.

    Raises UserError where the folder holds something, where the policy is not up to date or not as recorded, and for a
    key that cannot sign.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds something already: name a folder that is new or empty.")
    if any((above / "dvc.yaml").exists() and folder.is_relative_to(above / "data") for above in folder.parents):
        raise UserError(f"{folder} is inside data/, which holds what stages make: name a folder elsewhere.")
    signer = _signer(key) if key else None
    _refuse_other_than_recorded(graph, policy)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as scratch:
            new = Path(scratch) / folder.name
            new.mkdir()
            _fill(new, graph, policy, signer)
            found = {path.name: artifacts.sha256(path) for path in sorted(new.iterdir())}
            new.rename(folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise UserError(f"{folder} could not be written ({error.filename}: {error.strerror}): name another.") from error
    return found


def _fill(new: Path, graph: Graph, policy: Policy, signer: Any) -> None:
    """Copy the files of the model, write those that are made for others, and sign all of them."""
    from flows.pages import card

    expected = json.loads((policy.folder / artifacts.MANIFEST).read_text())
    for file in sorted({file for pattern in MODEL_FILES for file in policy.folder.glob(pattern)}):
        if file.name not in NOT_OF_A_MODEL:
            shutil.copyfile(file, new / file.name)
            if artifacts.sha256(new / file.name) != expected[file.name]:
                raise UserError(f"{file} changed while it was copied: nothing was exported; try again.")
    world = json.loads((artifacts.reading(policy.cell["corpus"]) / "world.json").read_text(encoding="utf-8"))
    (new / GENERATION).write_text(_generation(new, policy, world))
    (new / "README.md").write_text(card.text(graph, policy, world, new, bool(signer)), encoding="utf-8")
    if signer:
        signer.sign(new, new / SIGNATURE)


def find(graph: Graph, study: str, setting: str, seed: int | None, arm: str) -> Policy:
    """The policy of an arm. Without a setting it must be the only one; without a seed it is that of the first.

    Raises UserError for names that the study lacks, for an arm that is no policy, and where settings were to be named.
    """
    cells = plain.fast(graph.root / plain.CELLS)
    asked, found = cells["resolved"]["study"], cells["resolved"]["settings"]
    of = f"the study {study}" if study else plain.PARAMS
    settings, seeds = asked["settings"], asked["seeds"]
    if setting:
        arms.known(setting, settings, "--setting", f"the settings of {of}")
    elif len(settings) > 1:
        raise UserError(f"{of} has the settings {', '.join(settings)}: say which one with --setting.")
    chosen = setting or settings[0]
    if seed is not None and seed not in seeds:
        raise UserError(
            f"--seed {seed} is not among the seeds of {of}, {', '.join(map(str, seeds))}: name one of these."
        )
    arms.known(arm, found[chosen]["arms"], "the command", f"the arms of {of}")
    if arms.kind(found[chosen]["arms"][arm]) == "pick":
        policies = [name for name, one in found[chosen]["arms"].items() if arms.kind(one) != "pick"]
        raise UserError(
            f"{arm} picks among completions of the base policy and trains none, so that there is no policy to export: "
            f"take one of {', '.join(policies)}."
        )
    of_arm = {
        one["seed"]: one for one in cells["cells"]["evaluate"].values() if (one["setting"], one["arm"]) == (chosen, arm)
    }
    number = next(iter(of_arm), seeds[0]) if seed is None else seed
    if number not in of_arm:
        raise UserError(
            f"{chosen}-{number} is taken as published (study.restored), which is results without policies: take it "
            "out of study.restored, run it, then export."
        )
    cell = of_arm[number]
    path = cell["base"] if cell["policy"].startswith(arms.NONE) else cell["policy"]
    stage = next(name for name in graph.stages if path in [out.def_path for out in graph.dvc_stage(name).outs])
    shared = "seed" not in graph.stages[stage].labels
    default = f"Seed {number}, the first of {', '.join(map(str, seeds))}: --seed names another."
    said = default if seed is None and len(seeds) > 1 and not shared else ""
    return Policy(study, chosen, number, arm, graph.root / path, stage, cell, said)


def _refuse_other_than_recorded(graph: Graph, policy: Policy) -> None:
    if not policy.folder.exists():
        raise UserError(f"{policy.stage} has not made {policy.arm} here yet: `{policy.again}` makes it.")
    for out in (out for out in graph.dvc_stage(policy.stage).outs if out.hash_info):
        for path, word in differences(out).items():
            raise UserError(f"{path} {word} since it was recorded: remove {out.def_path}, then `{policy.again}`.")
    if due := plan(graph, {policy.stage}).due:
        raise UserError(f"{policy.arm} is not up to date here ({due[0]} would run): first `{policy.again}`.")
    artifacts.reading(policy.folder)


def _generation(new: Path, policy: Policy, world: dict) -> str:
    """generation_config.json, by which `generate` draws as the evaluation does."""
    found = json.loads((new / GENERATION).read_text()) if (new / GENERATION).exists() else {}
    found.pop("_from_model_config", None)
    resolved = plain.fast(plain.CELLS)["resolved"]["settings"][policy.setting]
    found |= {"do_sample": True, "temperature": resolved["evaluate"]["temperature"], "top_k": 0, "top_p": 1.0}
    found |= {"max_new_tokens": world["max_completion"], "suppress_tokens": [world["pad"]]}
    found |= {"eos_token_id": world["eos"], "pad_token_id": world["pad"]}
    return json.dumps(found, indent=2, sort_keys=True) + "\n"


def _signer(key: Path) -> Any:
    """What signs with a private key. Raises UserError where the packages are missing, or the key is of another kind."""
    try:
        from model_signing import hashing, signing
    except ImportError as error:
        raise UserError(
            f"--sign needs packages that are not installed ({error.name}): `.venv/bin/pip install -e '.[sign]'`."
        ) from error
    try:
        hashed = hashing.Config().set_ignored_paths(paths=[SIGNATURE])  # the verifiers of the library leave it out too
        return signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(hashed)
    except OSError as error:
        raise UserError(f"--sign {key}: {error.strerror}: name a file with a private key.") from error
    except (
        ValueError,
        TypeError,
        AttributeError,
    ) as error:  # an ed25519 key has no curve, an encrypted one no password
        raise UserError(
            f"--sign {key} is no unencrypted private key on the curve P-256, P-384 or P-521 in PEM, and model-signing "
            "takes no other (nor ed25519): make one by `openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem`."
        ) from error
