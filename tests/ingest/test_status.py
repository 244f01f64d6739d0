"""Error bodies are google.rpc.Status in both encodings."""

from __future__ import annotations

import json

import pytest
from google.protobuf import json_format
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from ingest.otlp import MESSAGE_CHARACTERS_MAX, Encoding
from ingest.status import CODES, status_body

FIELD = "resourceSpans[0].scopeSpans[0].spans[2].traceId"


def read(encoding: Encoding, body: bytes) -> Status:
    return Status.FromString(body) if encoding is Encoding.PROTOBUF else json_format.Parse(body, Status())


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("status", [*CODES, 418])
def test_every_status_has_a_message_and_the_nearest_code(encoding: Encoding, status: int) -> None:
    read_back = read(encoding, status_body(encoding, status=status, message="what to do"))
    assert read_back.message == "what to do"
    assert read_back.code == CODES.get(status, Code.UNKNOWN)
    assert bool(read_back.details) == (status == 400)


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("field", [FIELD, ""])
def test_a_400_says_which_field_in_its_detail(encoding: Encoding, field: str) -> None:
    body = status_body(encoding, status=400, message="must be hexadecimal", field=field)
    detail = BadRequest()
    assert read(encoding, body).details[0].Unpack(detail)
    violation = detail.field_violations[0]
    assert (violation.field, violation.description) == (field, "must be hexadecimal")


def test_the_json_is_the_one_the_protobuf_runtime_writes() -> None:
    ours = status_body(Encoding.JSON, status=400, message="wrong", field=FIELD)
    status = Status.FromString(status_body(Encoding.PROTOBUF, status=400, message="wrong", field=FIELD))
    assert json.loads(ours) == json_format.MessageToDict(status)


@pytest.mark.parametrize("encoding", Encoding)
def test_a_message_is_cut(encoding: Encoding) -> None:
    body = status_body(encoding, status=400, message="m" * 100_000)
    assert read(encoding, body).message == "m" * MESSAGE_CHARACTERS_MAX
