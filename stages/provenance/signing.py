"""DSSE envelopes, and the key by which a user signs them, which lies outside every checkout."""

import json
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey

from stages.records.errors import UserError

PAYLOAD = "application/vnd.in-toto+json"


def home() -> Path:
    """The user's folder with ``key.pem``, a private key, and ``trusted``, the public keys that this user trusts."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "all-roads"


def signer() -> CryptoSigner | None:
    """What signs as this user; None for one without a key. Raises UserError for a key that cannot be used."""
    path = home() / "key.pem"
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): mend that, or move it away.") from None
    if path.stat().st_mode & 0o077:
        raise UserError(f"{path} can be read by others: `chmod 600` it, or make another key if somebody has read it.")
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:  # no PEM; one that needs a password
        raise UserError(f"{path} is no private key that can be used ({error}): move it away to sign nothing.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{path} is no ed25519 key: move it away, and make one by `roads keys new`.")
    return CryptoSigner(key, SSlibKey.from_crypto(key.public_key()))


def envelope(payload: bytes, signs: CryptoSigner | None) -> bytes:
    """A payload in its DSSE envelope, as JSON; without a signature where nothing signs."""
    sealed = Envelope(payload, PAYLOAD, {})
    if signs:
        sealed.sign(signs)
    return (json.dumps(sealed.to_dict(), sort_keys=True) + "\n").encode()
