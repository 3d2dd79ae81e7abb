"""Keys lie outside every checkout, are never overwritten, and only public ones are trusted."""

import os
from pathlib import Path

import pytest
import small

from flows.provenance import keys
from stages.provenance import signing
from stages.records.errors import UserError


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An empty checkout as the current folder; the user's configuration is beside it."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Path.cwd()


def test_a_new_key_is_for_its_owner_alone_signs_from_then_on_and_is_trusted_here(project):
    assert signing.signer() is None and keys.listed() == [] and keys.trusted(project) == {}
    identity, public = keys.new(project)
    private = signing.home() / "key.pem"
    assert private.stat().st_mode & 0o777 == 0o600 and b"PRIVATE" in private.read_bytes()
    assert public == signing.home() / "trusted" / f"{identity[:16]}.pem" and b"PUBLIC" in public.read_bytes()
    assert keys.listed() == [{"id": identity, "path": str(public), "signs": True}]
    assert signing.signer().public_key.keyid == identity and set(keys.trusted(project)) == {identity}
    before = private.read_bytes()
    with pytest.raises(UserError, match="There is a key already"):
        keys.new(project)
    assert private.read_bytes() == before
    assert {path.name for path in signing.home().iterdir()} == {"key.pem", "trusted"}, "nothing half-written is left"
    public.unlink()
    assert keys.listed() == [{"id": identity, "path": "", "signs": True}], "it signs, and nobody here believes it"


def test_somebody_elses_public_key_is_copied_and_believed_and_signs_nothing(project, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "ana"))
    identity, public = keys.new(project)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert keys.trust(str(public))[0] == identity
    assert [one["signs"] for one in keys.listed()] == [False] and signing.signer() is None
    assert set(keys.trusted(project)) == {identity}
    with pytest.raises(UserError, match=r"key.pem is a private key, which nobody else may see"):
        keys.trust(str(tmp_path / "ana/all-roads/key.pem"))


def test_what_is_no_ed25519_public_key_is_refused_by_name(project, tmp_path):
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    Path("p256.pem").write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    Path("text.pem").write_text("no key")
    for name in ("p256.pem", "text.pem"):
        with pytest.raises(UserError, match=f"{name} is no ed25519 public key"):
            keys.trust(name)
    with pytest.raises(UserError, match=r"gone.pem cannot be read"):
        keys.trust("gone.pem")
    assert keys.listed() == []
    (signing.home() / "trusted").mkdir(parents=True)
    (signing.home() / "trusted/cut.pem").write_text("-----BEGIN PUBLIC KEY-----\nMCow")
    with pytest.raises(UserError, match=r"cut.pem is no ed25519 public key"):
        keys.trusted(project)


def test_keys_in_the_checkout_are_refused_also_behind_a_link(project, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(project / "config"))
    with pytest.raises(UserError, match="lies in the checkout, where no key may lie"):
        keys.new(project)
    assert not Path("config").exists()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    _, public = keys.new(project)
    Path("came_with_it.pem").write_bytes(public.read_bytes())
    public.unlink()
    public.symlink_to(project / "came_with_it.pem")
    with pytest.raises(UserError, match="lies in the checkout"):
        keys.trusted(project)


@pytest.mark.slow
def test_the_command_says_ids_and_paths_and_what_to_do_with_them(project):
    (project / "dvc.yaml").touch()

    def roads(*words):
        return small.roads("keys", *words, XDG_CONFIG_HOME=os.environ["XDG_CONFIG_HOME"])

    assert roads("list") == (
        0,
        "There are no keys: `roads keys new` makes yours, `roads keys trust FILE` adds somebody else's.\n",
    )
    code, said = roads("new")
    (one,) = keys.listed()
    assert code == 0 and said.startswith(f"{one['id']}  {one['path']}  (yours: it signs)\n") and "public half" in said
    assert roads("new")[0] == 2 and roads("trust")[0] == 2 and roads("new", "x")[0] == 2
    code, said = roads("trust", one["path"])
    assert code == 0 and "Compare the id with its owner" in said
