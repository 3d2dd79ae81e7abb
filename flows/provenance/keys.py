"""Keys, which lie in the user's own configuration folder, outside every checkout.

``key.pem`` there signs; the public keys in ``trusted`` are those whose signatures this user believes. A key that lies
in the checkout proves nothing, as whoever wrote the checkout could have made it.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.pipeline.stated import Stated
from stages.provenance.signing import PAYLOAD, home, signer
from stages.records.artifacts import write_file
from stages.records.errors import UserError

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

PRIVATE, TRUSTED = "key.pem", "trusted"
SIGNED, FORGED, STRANGE, UNSIGNED = "signed", "forged", "strange", "unsigned"


def new(project: Path) -> tuple[str, Path]:
    """Make an ed25519 key that signs from now on; its id, and the file of its public half, which is trusted here.

    Raises UserError if there is one already, and where it would lie in the checkout of the ``project``.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key, path = Ed25519PrivateKey.generate(), home() / PRIVATE
    _outside(path, project)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        if path.exists():
            raise FileExistsError
        home().mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_name(f".{PRIVATE}.{os.getpid()}")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)
        try:
            kept = _keep(key.public_key())
            os.link(partial, path)  # at once and whole, and never over another one
        finally:
            partial.unlink()
    except FileExistsError:
        raise UserError(f"There is a key already, {path}: move it away if you want another one.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): nothing was made.") from None
    return kept


def trust(file: str) -> tuple[str, Path]:
    """Copy a public key into the folder of those that are trusted; its id, and the copy. Raises UserError."""
    return _keep(_public(Path(file)))


def trusted(project: Path) -> dict[str, "SSlibKey"]:
    """The keys that this user trusts, by their ids. Raises UserError for a file that is none, and where they lie in
    the checkout of the ``project``."""
    from securesystemslib.signer import SSlibKey

    found = {}
    for path in sorted((home() / TRUSTED).glob("*.pem")):
        _outside(path, project)
        key = SSlibKey.from_crypto(_public(path))
        found[key.keyid] = key
    return found


def listed() -> list[dict[str, Any]]:
    """id, path and ``signs`` (whether it is the user's own) of each trusted key. Raises UserError."""
    from securesystemslib.signer import SSlibKey

    own = signer()
    paths = sorted((home() / TRUSTED).glob("*.pem"))
    ids = {path: SSlibKey.from_crypto(_public(path)).keyid for path in paths}
    found = [
        {"id": key, "path": str(path), "signs": bool(own) and key == own.public_key.keyid} for path, key in ids.items()
    ]
    if own and own.public_key.keyid not in ids.values():
        found.append({"id": own.public_key.keyid, "path": "", "signs": True})
    return found


def signature(stated: Stated, trusted: Mapping[str, "SSlibKey"]) -> tuple[str, str]:
    """What the signatures of a statement come to, and the id of the key: SIGNED by one that is trusted, FORGED in the
    name of one, STRANGE if by others alone, UNSIGNED ("")."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import Signature

    if not stated.signatures:
        return UNSIGNED, ""
    ours = {key: Signature(key, signed.hex()) for key, signed in stated.signatures if key in trusted}
    if not ours:
        return STRANGE, stated.signatures[0][0]
    with contextlib.suppress(VerificationError):
        return SIGNED, next(iter(Envelope(stated.signed, PAYLOAD, ours).verify(list(trusted.values()), 1)))
    return FORGED, next(iter(ours))


def best(fitting: Iterable[Stated], trusted: Mapping[str, "SSlibKey"]) -> Stated:
    """Of statements about the same thing the one that proves most; of equal ones the first that was made."""
    order = (SIGNED, STRANGE, UNSIGNED, FORGED)
    return min(fitting, key=lambda one: (order.index(signature(one, trusted)[0]), not one.clean, one.finished))


def _outside(path: Path, project: Path) -> None:
    if path.resolve().is_relative_to(project.resolve()):
        raise UserError(f"{path} lies in the checkout, where no key may lie: set XDG_CONFIG_HOME to a folder outside.")


def _public(path: Path) -> Any:
    """A file's ed25519 public key. Raises UserError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        content = path.read_bytes()
        if b"PRIVATE KEY" in content:
            raise UserError(f"{path} is a private key, which nobody else may see: give its public half to others.")
        key = load_pem_public_key(content)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name the file of a public key.") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise UserError(
            f"{path} is no ed25519 public key in PEM, as `roads keys new` makes them: name one, or remove it."
        )
    return key


def _keep(key: Any) -> tuple[str, Path]:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from securesystemslib.signer import SSlibKey

    identity = SSlibKey.from_crypto(key).keyid
    path = home() / TRUSTED / f"{identity[:16]}.pem"
    write_file(path, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return identity, path
