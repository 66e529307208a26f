"""TLS identities: one self-signed ECDSA P-256 certificate a party, which the roster binds to it by fingerprint.

There is no certificate authority. A certificate is its own trust anchor, and it cannot be anyone else's: it says
``CA:FALSE`` and carries no right to sign certificates, so a party cannot lend its place on a link to a second key.
ECDSA, because gRPC rejects Ed25519 certificates; P-256, because every TLS 1.3 stack has it.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from federation.crypto.digests import DIGEST_PREFIX
from federation.crypto.errors import CertificateError
from federation.crypto.private_files import read_private, write_private
from federation.errors import UsageError

GRPC_CIPHER_SUITES = "ECDHE-RSA-AES128-GCM-SHA256"
"""The value of ``GRPC_SSL_CIPHER_SUITES`` that leaves TLS 1.3 alone; set it before gRPC is imported.

gRPC has no switch against TLS 1.2. This names the suites of 1.2 only (1.3's are fixed), and this one needs an RSA
certificate, which no party has: so 1.2 finds no shared cipher. `peer_fingerprint` checks the outcome.
"""

CERTIFICATE_DAYS = 825
CERTIFICATE_LIMIT = 8192
_SUFFIX = ".keyong"
_CLOCK_SKEW = datetime.timedelta(hours=1)
_MEMBER_ID = re.compile(
    r"[a-z0-9]([a-z0-9-]{0,55}[a-z0-9])?", re.ASCII
)  # with the suffix, X.509's 64 for a common name
_USAGES = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_PURPOSES = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
_CONSTRAINTS = x509.BasicConstraints(ca=False, path_length=None)


@dataclass(frozen=True)
class Certificate:
    """What `check_certificate` found in a certificate that it accepts.

    Args:
        server_name: the name to expect in the handshake (``grpc.ssl_target_name_override``).
        fingerprint: ``sha256:<hex>`` over the DER form; what the roster binds.
        not_before: start of validity, UTC.
        not_after: end of validity, UTC.
    """

    server_name: str
    fingerprint: str
    not_before: datetime.datetime
    not_after: datetime.datetime


@dataclass(frozen=True)
class TlsIdentity:
    """A private key and the certificate over it, as PEM; the key does not show in `repr`."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes

    @classmethod
    def generate(cls, member_id: str, days: int = CERTIFICATE_DAYS) -> Self:
        """A new key and a certificate for ``<member_id>.keyong``, valid from an hour ago for ``days``.

        Args:
            member_id: a DNS label of at most 57 characters.
            days: how long it is valid; 825 is the most that common TLS clients take.

        Raises:
            UsageError: not such a label, or less than a day.
        """
        if days < 1:
            raise UsageError("a certificate is valid for at least one day")
        name = server_name(member_id)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        start = datetime.datetime.now(datetime.UTC).replace(microsecond=0) - _CLOCK_SKEW
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + _CLOCK_SKEW + datetime.timedelta(days=days))
            .add_extension(_CONSTRAINTS, critical=True)
            .add_extension(_USAGES, critical=True)
            .add_extension(_PURPOSES, critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            certificate.public_bytes(serialization.Encoding.PEM),
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """The identity that `save` wrote, from a file that only its owner can read.

        Validity is not judged here: an expired certificate must still load, to be replaced by a signed statement.

        Raises:
            UsageError: absent, open to others, or not one P-256 key followed by its certificate.
        """
        data = read_private(path)
        key_pem, marker, rest = data.partition(b"-----BEGIN CERTIFICATE-----")
        try:
            key = serialization.load_pem_private_key(key_pem, password=None)
            certificate = x509.load_pem_x509_certificate(marker + rest)
            matches = key.public_key() == certificate.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm):
            matches = False
        if not matches:
            raise UsageError("{path} does not hold a TLS key and the certificate over it", path=path)
        return cls(key_pem, marker + rest)

    def save(self, path: Path, *, replace: bool = False) -> None:
        """Write key and certificate as one PEM file, mode 0600: one file, so that a crash cannot part the pair.

        Raises:
            UsageError: the file exists and ``replace`` is false.
        """
        write_private(path, self.key_pem + self.certificate_pem, replace=replace)

    @property
    def fingerprint(self) -> str:
        """``sha256:<hex>`` over the certificate's DER form."""
        return certificate_fingerprint(self.certificate_pem)


def server_name(member_id: str) -> str:
    """The name in a member's certificate: ``<member_id>.keyong``; resolved by nobody, compared in the handshake.

    Raises:
        UsageError: the id is not a DNS label of at most 57 characters.
    """
    if _MEMBER_ID.fullmatch(member_id) is None:
        raise UsageError("a member's id is 1 to 57 lower-case letters, digits and inner hyphens")
    return member_id + _SUFFIX


def certificate_fingerprint(pem: bytes) -> str:
    """``sha256:<hex>`` over the DER form of the one certificate in ``pem``; says nothing about its validity.

    Raises:
        CertificateError: not exactly one certificate.
    """
    return _fingerprint(_load(pem))


def check_certificate(pem: bytes, *, at: datetime.datetime | None = None) -> Certificate:
    """Return what the certificate says if it has the one form `TlsIdentity.generate` makes; raise otherwise.

    Args:
        pem: what a party announced as its certificate.
        at: the time to judge validity by, with a time zone; now if None.

    Raises:
        CertificateError: not one certificate, not P-256, not signed by its own key, able to sign others, another
            usage, another name than ``<member id>.keyong``, or not valid at this time.
    """
    certificate = _load(pem)
    try:
        name = _check_form(certificate)
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
        # pyca parses lazily: what is malformed inside shows only when it is looked at.
        raise CertificateError("the certificate holds something that cannot be read") from None
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    moment = datetime.datetime.now(datetime.UTC) if at is None else at
    if moment < start:
        raise CertificateError(
            "the certificate is not valid before {start}",
            hint="check the clocks of both machines",
            start=start.isoformat(),
        )
    if moment > end:
        raise CertificateError("the certificate expired on {end}", end=end.isoformat())
    return Certificate(name, _fingerprint(certificate), start, end)


def peer_fingerprint(auth_context: Mapping[str, Iterable[bytes]]) -> str:
    """The fingerprint of the certificate at the other end of a TLS 1.3 link; raise if the link is anything less.

    A server calls this in every handler and looks the result up in the roster: gRPC keeps a link open after its
    certificate left the trusted set, and goes on with the old set when fetching the new one fails.

    Args:
        auth_context: what gRPC's ``context.auth_context()`` gives.

    Raises:
        CertificateError: not TLS 1.3, or not exactly one certificate.
    """
    if list(auth_context.get("ssl_tls_version", ())) != [b"TLSv1.3"]:
        raise CertificateError(
            "the link is not TLS 1.3", hint="set GRPC_SSL_CIPHER_SUITES as this project does before gRPC is imported"
        )
    certificates = list(auth_context.get("x509_pem_cert", ()))
    if len(certificates) != 1:
        raise CertificateError("the peer of the link showed no certificate")
    return certificate_fingerprint(certificates[0])


def _load(pem: bytes) -> x509.Certificate:
    if len(pem) > CERTIFICATE_LIMIT:
        raise CertificateError("the certificate is larger than {limit} bytes", limit=CERTIFICATE_LIMIT)
    try:
        (certificate,) = x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion):
        raise CertificateError("expected exactly one certificate in PEM") from None
    return certificate


def _fingerprint(certificate: x509.Certificate) -> str:
    der = certificate.public_bytes(serialization.Encoding.DER)
    return DIGEST_PREFIX + hashlib.sha256(der).hexdigest()


def _check_form(certificate: x509.Certificate) -> str:
    """The server name, once key, signature and extensions are what `TlsIdentity.generate` writes and no other."""
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateError("the certificate's key is not ECDSA P-256")
    if certificate.issuer != certificate.subject or not isinstance(certificate.signature_hash_algorithm, hashes.SHA256):
        raise CertificateError("the certificate is not signed by its own key with SHA-256")
    if not certificate.public_bytes(serialization.Encoding.DER).endswith(b"\x00" + certificate.signature):
        # The count of unused bits before the signature is the one byte that nothing signs: it must be none.
        raise CertificateError("the certificate holds something that cannot be read")
    try:
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise CertificateError("the certificate is not signed by its own key with SHA-256") from None
    found = {type(one.value): one.value for one in certificate.extensions}
    names = found.pop(x509.SubjectAlternativeName, None)
    if found != {x509.BasicConstraints: _CONSTRAINTS, x509.KeyUsage: _USAGES, x509.ExtendedKeyUsage: _PURPOSES}:
        raise CertificateError("the certificate's extensions are not those of a link certificate")
    return _check_name(certificate, names)


def _check_name(certificate: x509.Certificate, names: x509.ExtensionType | None) -> str:
    entries = list(names) if isinstance(names, x509.SubjectAlternativeName) else []
    common = [one.value for one in certificate.subject if one.oid == NameOID.COMMON_NAME]
    if len(entries) == 1 and isinstance(entries[0], x509.DNSName):
        name = entries[0].value
        if _is_server_name(name) and len(certificate.subject) == 1 and common == [name]:
            return name
    raise CertificateError("the certificate's name is not '<member id>.keyong'")


def _is_server_name(name: str) -> bool:
    return name.endswith(_SUFFIX) and _MEMBER_ID.fullmatch(name.removesuffix(_SUFFIX)) is not None
