"""Signed notes, checkpoints and cosignatures."""

from __future__ import annotations

import base64

import pytest

from federation.crypto import SigningKey
from federation.ledger import (
    Checkpoint,
    KeySubstitutionError,
    Note,
    NoteFormatError,
    NoteSignature,
    NoteSignatureError,
    OriginError,
    SignatureMissingError,
    SignatureTypeError,
    VerifierKey,
    cosign,
    open_checkpoint,
    parse_note,
    sign_checkpoint,
    verify_note,
)
from federation.ledger.note import COSIGNATURE, key_id

ORIGIN = "keyong/test/steelworks"
WITNESS = "keyong/test/foundry/witness"
KEY = SigningKey.from_bytes(bytes(range(32)))
OTHER = SigningKey.from_bytes(bytes(range(1, 33)))
VKEY = VerifierKey(ORIGIN, KEY.public)
WITNESS_VKEY = VerifierKey(WITNESS, OTHER.public, COSIGNATURE)
CHECKPOINT = Checkpoint(ORIGIN, 7, bytes(32))
NOTE = sign_checkpoint(CHECKPOINT, KEY)

# The example of https://c2sp.org/signed-note, as the Go reference implementation (golang.org/x/mod/sumdb/note) has it.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_a_note_of_the_reference_implementation_verifies() -> None:
    key = VerifierKey.parse(GO_VKEY)
    assert str(key) == GO_VKEY
    note = parse_note(f"{GO_TEXT}\n{GO_LINE}".encode())
    assert note.text == GO_TEXT
    assert verify_note(note, [key]) == (key,)
    with pytest.raises(NoteSignatureError):
        verify_note(Note(GO_TEXT.replace("answer", "cause"), note.signatures), [key])


def test_checkpoint_round_trip() -> None:
    assert CHECKPOINT.text() == f"{ORIGIN}\n7\n{base64.b64encode(bytes(32)).decode()}\n"
    opened = open_checkpoint(NOTE, VerifierKey.parse(str(VKEY)))
    assert (opened.checkpoint, opened.witnesses) == (CHECKPOINT, ())


@pytest.mark.parametrize(
    "text",
    [
        "origin\n7\n",
        "origin\n07\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "origin\n-1\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "origin\n٧\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "origin\n7\n" + base64.b64encode(bytes(31)).decode() + "\n",
        "origin\n7\n" + base64.b64encode(bytes(32)).decode() + "\nextension\n",
        "origin\n7\n" + base64.b64encode(bytes(32)).decode(),
        "origin\n99999999999999999999\n" + base64.b64encode(bytes(32)).decode() + "\n",
    ],
)
def test_bad_checkpoints_are_refused(text: str) -> None:
    with pytest.raises(NoteFormatError):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\nno dash\n",
        "text\n\n— name\n".encode(),
        "text\n\n— name AAAA\n".encode(),
        "text\n\n— na+me AAAAAAAA\n".encode(),
        "text\n\n— name AAAAAAA*\n".encode(),
        b"te\x01xt\n\n" + NOTE.split(b"\n\n")[1],
        b"te\xffxt\n\n" + NOTE.split(b"\n\n")[1],
        NOTE[:-1] + b"\r\n",
        b"a" * 70_000,
    ],
)
def test_bad_notes_are_refused(data: bytes) -> None:
    with pytest.raises(NoteFormatError):
        parse_note(data)


def test_the_text_may_hold_empty_lines() -> None:
    text = "one\n\ntwo\n"
    signature = NoteSignature(ORIGIN, VKEY.key_id, KEY.sign(text.encode()))
    assert parse_note(Note(text, (signature,)).encode()).text == text


@pytest.mark.parametrize(
    "vkey",
    ["", "name", "name+00000000+AAAA", f"x{VKEY}", str(VKEY).replace("+", "-"), f"{VKEY} ", str(VKEY).upper()],
)
def test_bad_verifier_keys_are_refused(vkey: str) -> None:
    with pytest.raises(NoteFormatError):
        VerifierKey.parse(vkey)


def test_unknown_signatures_are_ignored_and_sixteen_accepted() -> None:
    strangers = [SigningKey.generate() for _ in range(16)]
    lines = [NoteSignature(f"n{i}", key_id(f"n{i}", 1, k.public.raw), bytes(64)) for i, k in enumerate(strangers)]
    note = parse_note(NOTE)
    open_checkpoint(Note(note.text, (*lines, *note.signatures)).encode(), VKEY)


def test_a_known_key_that_fails_rejects_the_note() -> None:
    note = parse_note(NOTE)
    bad = NoteSignature(ORIGIN, VKEY.key_id, bytes(64))
    with pytest.raises(NoteSignatureError):
        open_checkpoint(Note(note.text, (*note.signatures, bad)).encode(), VKEY)


def test_stripped_signature() -> None:
    with pytest.raises(SignatureMissingError):
        open_checkpoint(NOTE.split(b"\n\n")[0] + b"\n\n", VKEY)
    note = parse_note(NOTE)
    stranger = NoteSignature("somebody", b"abcd", bytes(64))
    with pytest.raises(SignatureMissingError):
        open_checkpoint(Note(note.text, (stranger,)).encode(), VKEY)


def test_key_substitution() -> None:
    with pytest.raises(KeySubstitutionError):
        open_checkpoint(sign_checkpoint(CHECKPOINT, OTHER), VKEY)


def test_origin_swap() -> None:
    other = Checkpoint("keyong/test/foundry", 7, bytes(32))
    with pytest.raises(OriginError):
        open_checkpoint(sign_checkpoint(other, KEY), VKEY)


def test_type_confusion_in_both_directions() -> None:
    as_witness = cosign(CHECKPOINT, ORIGIN, KEY, 1_700_000_000)
    with pytest.raises(SignatureTypeError):
        open_checkpoint(Note(CHECKPOINT.text(), (as_witness,)).encode(), VKEY)
    # the cosignature's 72 bytes under the plain key's id
    relabelled = NoteSignature(ORIGIN, VKEY.key_id, as_witness.value)
    with pytest.raises(SignatureTypeError):
        open_checkpoint(Note(CHECKPOINT.text(), (relabelled,)).encode(), VKEY)
    # the cosignature's 64 bytes under the plain key's id: another message was signed
    cut = NoteSignature(ORIGIN, VKEY.key_id, as_witness.value[8:])
    with pytest.raises(NoteSignatureError):
        open_checkpoint(Note(CHECKPOINT.text(), (cut,)).encode(), VKEY)
    plain = NoteSignature(WITNESS, key_id(WITNESS, 1, OTHER.public.raw), OTHER.sign(CHECKPOINT.text().encode()))
    with pytest.raises(SignatureTypeError):
        verify_note(Note(CHECKPOINT.text(), (plain,)), [WITNESS_VKEY])


def test_cosignature_names_the_witness_and_binds_its_time() -> None:
    line = cosign(CHECKPOINT, WITNESS, OTHER, 1_700_000_000)
    note = parse_note(NOTE)
    both = Note(note.text, (*note.signatures, line)).encode()
    assert open_checkpoint(both, VKEY, [WITNESS_VKEY]).witnesses == (WITNESS,)
    assert open_checkpoint(both, VKEY).witnesses == ()
    later = NoteSignature(line.name, line.key_id, (1_700_000_001).to_bytes(8, "big") + line.value[8:])
    with pytest.raises(NoteSignatureError):
        open_checkpoint(Note(note.text, (*note.signatures, later)).encode(), VKEY, [WITNESS_VKEY])


def test_a_witness_alone_does_not_make_a_checkpoint() -> None:
    line = cosign(CHECKPOINT, WITNESS, OTHER, 1_700_000_000)
    with pytest.raises(SignatureMissingError):
        open_checkpoint(Note(CHECKPOINT.text(), (line,)).encode(), VKEY, [WITNESS_VKEY])
