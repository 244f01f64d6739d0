"""Error bodies: google.rpc.Status in the encoding of the request (OTLP/HTTP "Failures").

`code` is the gRPC code nearest to the HTTP status, so that both transports say the same; a 400 carries a
BadRequest detail.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from ingest.otlp import MESSAGE_CHARACTERS_MAX, Encoding

CODES = {
    HTTPStatus.BAD_REQUEST: Code.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: Code.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: Code.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: Code.UNIMPLEMENTED,
    HTTPStatus.METHOD_NOT_ALLOWED: Code.UNIMPLEMENTED,
    HTTPStatus.REQUEST_TIMEOUT: Code.DEADLINE_EXCEEDED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Code.RESOURCE_EXHAUSTED,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: Code.INVALID_ARGUMENT,
    HTTPStatus.TOO_MANY_REQUESTS: Code.RESOURCE_EXHAUSTED,
    HTTPStatus.SERVICE_UNAVAILABLE: Code.UNAVAILABLE,
}


def status_body(encoding: Encoding, *, status: int, message: str, field: str = "") -> bytes:
    """Encode an error.

    Args:
        encoding: The request's, or JSON where it is not known.
        status: The HTTP status.
        message: English, for the developer of the sender; cut at `MESSAGE_CHARACTERS_MAX`.
        field: On a 400, the path of the field at fault; empty for the body as a whole.
    """
    text = message[:MESSAGE_CHARACTERS_MAX]
    code = CODES.get(HTTPStatus(status), Code.UNKNOWN)
    if encoding is Encoding.PROTOBUF:
        return _protobuf(code, text, field if status == HTTPStatus.BAD_REQUEST else None)
    body: dict[str, Any] = {"code": int(code), "message": text}
    if status == HTTPStatus.BAD_REQUEST:
        violation = {"field": field, "description": text} if field else {"description": text}
        detail = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}
        body["details"] = [detail]
    return orjson.dumps(body)


def _protobuf(code: Code, text: str, field: str | None) -> bytes:
    status = Status(code=code, message=text)
    if field is not None:
        detail = AnyMessage()
        detail.Pack(BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description=text)]))
        status.details.append(detail)
    encoded: bytes = status.SerializeToString()
    return encoded
