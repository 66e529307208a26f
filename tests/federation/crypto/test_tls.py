"""TLS certificates: one form is accepted, and every departure from it is refused."""

from __future__ import annotations

import datetime
import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from federation.crypto import (
    CertificateError,
    SigningKey,
    TlsIdentity,
    certificate_fingerprint,
    check_certificate,
    peer_fingerprint,
    server_name,
)
from federation.errors import UsageError

DAY = datetime.timedelta(days=1)
Builder = x509.CertificateBuilder


@pytest.fixture(scope="module")
def identity() -> TlsIdentity:
    return TlsIdentity.generate("anshan-steel", days=30)


def key_of(identity: TlsIdentity) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(identity.key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def rebuilt(
    identity: TlsIdentity,
    *,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | None = None,
    signer: ec.EllipticCurvePrivateKey | None = None,
    issuer: x509.Name | None = None,
    subject: x509.Name | None = None,
    swap: dict[type[x509.ExtensionType], x509.ExtensionType | None] | None = None,
    extra: x509.ExtensionType | None = None,
    algorithm: hashes.SHA256 | hashes.SHA384 | None = None,
) -> bytes:
    """The identity's certificate with one thing changed, signed by its own key unless that is what changes."""
    old = x509.load_pem_x509_certificate(identity.certificate_pem)
    own = key or key_of(identity)
    name = subject or old.subject
    builder = (
        Builder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(own.public_key())
        .serial_number(1)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
    )
    for extension in old.extensions:
        value = (swap or {}).get(type(extension.value), extension.value)
        if value is not None:
            builder = builder.add_extension(value, critical=extension.critical)
    if extra is not None:
        builder = builder.add_extension(extra, critical=False)
    chosen = None if isinstance(own, ed25519.Ed25519PrivateKey) and signer is None else algorithm or hashes.SHA256()
    return builder.sign(signer or own, chosen).public_bytes(serialization.Encoding.PEM)


def common_name(*names: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])


def test_what_generate_makes_is_accepted_and_described(identity: TlsIdentity) -> None:
    found = check_certificate(identity.certificate_pem)
    assert found.server_name == server_name("anshan-steel") == "anshan-steel.keyong"
    der = ssl.PEM_cert_to_DER_cert(identity.certificate_pem.decode())
    assert found.fingerprint == identity.fingerprint == "sha256:" + hashlib.sha256(der).hexdigest()
    assert found.not_after - found.not_before == 30 * DAY + datetime.timedelta(hours=1)


def test_what_generate_makes_cannot_sign_others(identity: TlsIdentity) -> None:
    extensions = x509.load_pem_x509_certificate(identity.certificate_pem).extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is False


def test_the_builder_of_these_tests_changes_nothing_by_itself(identity: TlsIdentity) -> None:
    assert check_certificate(rebuilt(identity)).server_name == "anshan-steel.keyong"


def test_validity_is_judged_at_the_time_given(identity: TlsIdentity) -> None:
    found = check_certificate(identity.certificate_pem)
    for moment in (found.not_before, found.not_after):
        check_certificate(identity.certificate_pem, at=moment)
    with pytest.raises(CertificateError, match="not valid before"):
        check_certificate(identity.certificate_pem, at=found.not_before - DAY)
    with pytest.raises(CertificateError, match="expired"):
        check_certificate(identity.certificate_pem, at=found.not_after + DAY)


FAULTS: dict[str, tuple[str, Callable[[TlsIdentity], bytes]]] = {
    "rsa": ("P-256", lambda i: rebuilt(i, key=rsa.generate_private_key(65537, 2048))),
    "ed25519": ("P-256", lambda i: rebuilt(i, key=ed25519.Ed25519PrivateKey.generate())),
    "p384": ("P-256", lambda i: rebuilt(i, key=ec.generate_private_key(ec.SECP384R1()))),
    "secp256k1": ("P-256", lambda i: rebuilt(i, key=ec.generate_private_key(ec.SECP256K1()))),
    "foreign signature": ("own key", lambda i: rebuilt(i, signer=ec.generate_private_key(ec.SECP256R1()))),
    "foreign issuer": ("own key", lambda i: rebuilt(i, issuer=common_name("other.keyong"))),
    "sha384": ("own key", lambda i: rebuilt(i, algorithm=hashes.SHA384())),
    "may sign others": (
        "extensions",
        lambda i: rebuilt(i, swap={x509.BasicConstraints: x509.BasicConstraints(ca=True, path_length=0)}),
    ),
    "no constraints": ("extensions", lambda i: rebuilt(i, swap={x509.BasicConstraints: None})),
    "no usage": ("extensions", lambda i: rebuilt(i, swap={x509.KeyUsage: None})),
    "server only": (
        "extensions",
        lambda i: rebuilt(
            i, swap={x509.ExtendedKeyUsage: x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])}
        ),
    ),
    "unknown extension": (
        "extensions",
        lambda i: rebuilt(i, extra=x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"")),
    ),
    "no name": ("name", lambda i: rebuilt(i, swap={x509.SubjectAlternativeName: None})),
    "two names": (
        "name",
        lambda i: rebuilt(
            i,
            swap={
                x509.SubjectAlternativeName: x509.SubjectAlternativeName(
                    [x509.DNSName("anshan-steel.keyong"), x509.DNSName("coordinator.keyong")]
                )
            },
        ),
    ),
    "another kind of name": (
        "name",
        lambda i: rebuilt(
            i,
            swap={
                x509.SubjectAlternativeName: x509.SubjectAlternativeName(
                    [x509.UniformResourceIdentifier("https://a.keyong")]
                )
            },
        ),
    ),
    "a name outside": (
        "name",
        lambda i: rebuilt(
            i,
            subject=common_name("example.com"),
            swap={x509.SubjectAlternativeName: x509.SubjectAlternativeName([x509.DNSName("example.com")])},
        ),
    ),
    "a wildcard": (
        "name",
        lambda i: rebuilt(
            i,
            subject=common_name("*.keyong"),
            swap={x509.SubjectAlternativeName: x509.SubjectAlternativeName([x509.DNSName("*.keyong")])},
        ),
    ),
    "subject says another": ("name", lambda i: rebuilt(i, subject=common_name("coordinator.keyong"))),
    "subject says more": (
        "name",
        lambda i: rebuilt(i, subject=common_name("anshan-steel.keyong", "coordinator.keyong")),
    ),
    "two certificates": ("exactly one", lambda i: i.certificate_pem * 2),
    "no certificate": ("exactly one", lambda i: b""),
    "a key": ("exactly one", lambda i: i.key_pem),
    "noise": ("exactly one", lambda i: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    "a mountain": ("larger", lambda i: i.certificate_pem * 20),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_other_form_is_refused(identity: TlsIdentity, fault: str) -> None:
    why, make = FAULTS[fault]
    with pytest.raises(CertificateError, match=why):
        check_certificate(make(identity))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_any_changed_byte_is_refused(identity: TlsIdentity) -> None:
    der = ssl.PEM_cert_to_DER_cert(identity.certificate_pem.decode())
    for position in range(len(der)):
        for change in (0x01, 0x02, 0x80):
            damaged = bytearray(der)
            damaged[position] ^= change
            with pytest.raises(CertificateError):
                check_certificate(ssl.DER_cert_to_PEM_cert(bytes(damaged)).encode())


def test_a_fingerprint_is_of_one_certificate(identity: TlsIdentity) -> None:
    again = rebuilt(identity)
    assert certificate_fingerprint(again) != identity.fingerprint
    with pytest.raises(CertificateError):
        certificate_fingerprint(identity.certificate_pem + again)


@pytest.mark.parametrize("member_id", ["", "Steel", "a.b", "-a", "a-", "a_b", "*", "a" * 58, "a\n", "\u94a2"])
def test_ids_that_are_no_label_are_refused(member_id: str) -> None:
    with pytest.raises(UsageError):
        TlsIdentity.generate(member_id)


def test_the_longest_id_fits() -> None:
    assert check_certificate(TlsIdentity.generate("a" * 57).certificate_pem).server_name == "a" * 57 + ".keyong"
    with pytest.raises(UsageError):
        TlsIdentity.generate("a", days=0)


def test_the_key_does_not_show(identity: TlsIdentity) -> None:
    assert "PRIVATE KEY" not in repr(identity)


def test_an_identity_survives_its_file(identity: TlsIdentity, tmp_path: Path) -> None:
    path = tmp_path / "tls.pem"
    identity.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert TlsIdentity.load(path) == identity
    with pytest.raises(UsageError, match="exists already"):
        identity.save(path)


def test_files_that_hold_no_pair_are_refused(identity: TlsIdentity, tmp_path: Path) -> None:
    other = TlsIdentity.generate("other")
    SigningKey.generate().save(tmp_path / "ed25519")
    TlsIdentity(other.key_pem, identity.certificate_pem).save(tmp_path / "mixed")
    TlsIdentity(identity.key_pem, b"").save(tmp_path / "key")
    TlsIdentity(b"", identity.certificate_pem).save(tmp_path / "certificate")
    for name in ("ed25519", "mixed", "key", "certificate"):
        with pytest.raises(UsageError, match="does not hold"):
            TlsIdentity.load(tmp_path / name)


def test_a_peer_is_named_only_on_tls13_with_one_certificate(identity: TlsIdentity) -> None:
    pem = identity.certificate_pem
    context = {"ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": [pem]}
    assert peer_fingerprint(context) == identity.fingerprint
    for version in ([b"TLSv1.2"], [], [b"TLSv1.3", b"TLSv1.2"]):
        with pytest.raises(CertificateError, match=r"not TLS 1\.3"):
            peer_fingerprint({**context, "ssl_tls_version": version})
    for certificates in ([], [pem, pem]):
        with pytest.raises(CertificateError, match="no certificate"):
            peer_fingerprint({**context, "x509_pem_cert": certificates})
    with pytest.raises(CertificateError):
        peer_fingerprint({})
