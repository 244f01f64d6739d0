"""The signature of a CMS SignedData (RFC 5652 5.4) by the certificate that it names, whoever vouches for that certificate.

For a token of an authority whose root is not known: nothing is believed because of it, and a token that fails here is nobody's.
It takes what the verifier behind `ledger.timestamps` takes: the scheme follows from the key, the digest from the SignerInfo.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from ledger import der
from ledger.errors import MalformedError, VerificationError

_CONTENT_TYPE: Final = bytes.fromhex("2a864886f70d010903")
"""1.2.840.113549.1.9.3"""
_MESSAGE_DIGEST: Final = bytes.fromhex("2a864886f70d010904")
"""1.2.840.113549.1.9.4"""
_HASHES: Final[dict[bytes, hashes.HashAlgorithm]] = {
    bytes.fromhex("608648016503040201"): hashes.SHA256(),
    bytes.fromhex("608648016503040202"): hashes.SHA384(),
    bytes.fromhex("608648016503040203"): hashes.SHA512(),
}
"""By the encoded object identifier."""


def require_signature(signed_data: der.Element, content_type: bytes, certificate: x509.Certificate) -> None:
    """Check that the one SignerInfo is the signature of a certificate's key over the content.

    Args:
        signed_data: with its content, and with signed attributes, which RFC 3161 2.4.2 wants.
        content_type: encoded object identifier of the content's type.
        certificate: the signer's.

    Raises:
        VerificationError: it is not.
        MalformedError: it cannot be read, or the key is of a kind that is not known here.
    """
    content = signed_data.child(2, der.SEQUENCE).child(1, der.CONTEXT_0).child(0, der.OCTET_STRING).body
    signer_info = signed_data.child(-1, der.SET).child(0, der.SEQUENCE)
    name = signer_info.child(2, der.SEQUENCE).child(0, der.OBJECT_IDENTIFIER).body
    digest = _HASHES.get(name)
    announced = [algorithm.child(0, der.OBJECT_IDENTIFIER).body for algorithm in signed_data.child(1, der.SET).children()]
    if digest is None or announced != [name]:
        raise VerificationError("the signature is over a digest that is broken or not known")
    attributes = signer_info.child(3, der.CONTEXT_0)
    if _value(attributes, _CONTENT_TYPE, der.OBJECT_IDENTIFIER) != content_type:
        raise VerificationError("the signature is over another kind of content")
    found, expected = _value(attributes, _MESSAGE_DIGEST, der.OCTET_STRING), hashlib.new(digest.name, content).digest()
    if found != expected:
        raise VerificationError("the signature is over another content", expected=expected.hex(), actual=found.hex())
    # What is signed is the attributes as a SET OF, not under the tag that they have in the SignerInfo.
    signed = der.Element(der.SET, attributes.body).encode()
    signature = signer_info.child(5, der.OCTET_STRING).body
    key = certificate.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(digest))
        else:
            raise MalformedError(f"a signature by a key of a kind that is not known: {type(key).__name__}")
    except InvalidSignature as exc:
        raise VerificationError("the signature is wrong: it is not of the certificate that it names") from exc


def _value(attributes: der.Element, kind: bytes, tag: int) -> bytes:
    """The one value of the one attribute of a kind."""
    found = [attribute for attribute in attributes.children() if attribute.child(0, der.OBJECT_IDENTIFIER).body == kind]
    if len(found) != 1 or len(found[0].child(1, der.SET).children()) != 1:
        raise VerificationError("the signature lacks an attribute, or has it twice")
    return found[0].child(1, der.SET).child(0, tag).body
