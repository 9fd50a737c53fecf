"""The inputs and errors of SQS, compared with AWS's service model as botocore has it."""

import re
from typing import Any

import msgspec
import pytest
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape
from msgspec import inspect

from app.compat.sqs import attributes
from app.compat.sqs.app import OPERATIONS
from app.compat.sqs.errors import KINDS, SqsError, error_of
from app.compat.sqs.model import INPUTS, check_entries, read_input
from app.domain.errors import CODES, Refusal

MODEL = ServiceModel(Loader().load_service_model("sqs", "service-2"))
SCALARS: dict[str, type[inspect.Type]] = {
    "string": inspect.StrType,
    "blob": inspect.StrType,  # base64
    "integer": inspect.IntType,
    "long": inspect.IntType,
}


def bare(kind: inspect.Type) -> inspect.Type:
    """The type without its bounds, and without null."""
    if isinstance(kind, inspect.Metadata):
        return bare(kind.type)
    if isinstance(kind, inspect.UnionType):
        (kind,) = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        return bare(kind)
    return kind


def same(shape: Shape, given: inspect.Type, where: str) -> None:
    kind = bare(given)
    if isinstance(shape, StructureShape):
        assert isinstance(kind, inspect.StructType), where
        fields = {field.encode_name: field for field in kind.fields}
        assert set(fields) == set(shape.members), where
        required = {name for name, field in fields.items() if field.required}
        assert required == set(shape.required_members), where
        for name, member in shape.members.items():
            same(member, fields[name].type, f"{where}.{name}")
    elif isinstance(shape, ListShape):
        assert isinstance(kind, inspect.ListType), where
        same(shape.member, kind.item_type, f"{where}[]")
    elif isinstance(shape, MapShape):
        assert isinstance(kind, inspect.DictType), where
        same(shape.key, kind.key_type, f"{where} key")
        same(shape.value, kind.value_type, f"{where} value")
    else:
        assert isinstance(kind, SCALARS[shape.type_name]), f"{where}: {kind} for {shape.type_name}"


def test_there_are_the_operations_of_the_model_and_no_others() -> None:
    assert len(INPUTS) == 23
    assert set(INPUTS) == set(MODEL.operation_names) == set(OPERATIONS)


@pytest.mark.parametrize("name", MODEL.operation_names)
def test_an_operation_takes_what_the_model_says(name: str) -> None:
    operation: OperationModel = MODEL.operation_model(name)
    same(operation.input_shape, inspect.type_info(INPUTS[name]), name)
    assert OPERATIONS[name].input is INPUTS[name]


def test_every_error_of_the_model_has_its_type_and_its_code_in_the_query_protocol() -> None:
    named = {shape.name for name in MODEL.operation_names for shape in MODEL.operation_model(name).error_shapes}
    modeled = {name: kind for name, kind in KINDS.items() if kind.type.startswith("com.amazonaws.sqs#")}
    assert set(modeled) == named
    for name, kind in modeled.items():
        assert kind.type == f"com.amazonaws.sqs#{name}"
        assert kind.code.removeprefix("AWS.SimpleQueueService.").removeprefix("KMS.") and 400 <= kind.status < 500
    assert KINDS["QueueDoesNotExist"].code == "AWS.SimpleQueueService.NonExistentQueue"
    assert KINDS["QueueNameExists"].code == "QueueAlreadyExists"


def test_queues_have_the_attributes_of_the_model() -> None:
    assert set(MODEL.shape_for("QueueAttributeName").enum) == {*attributes.NAMES, "All"}


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_refusal_is_an_error_of_sqs(code: str) -> None:
    assert error_of(Refusal(code, "why")).kind.status >= 400


BAD: list[tuple[str, Any, str, str]] = [
    ("SendMessage", {"QueueUrl": "u"}, "MissingParameter", "MessageBody"),
    ("SendMessage", {"QueueUrl": None, "MessageBody": "b"}, "MissingParameter", "QueueUrl"),
    ("SendMessage", {"QueueUrl": "u", "MessageBody": 7}, "MalformedInput", "MessageBody"),
    ("SendMessage", {"QueueUrl": "u", "MessageBody": "b", "DelaySeconds": 901}, "InvalidParameterValue", "<= 900"),
    ("SendMessage", {"QueueUrl": "u", "MessageBody": "b", "DelaySeconds": -1}, "InvalidParameterValue", "Value -1"),
    ("SendMessage", {"QueueUrl": "u", "MessageBody": "b", "DelaySeconds": 10**30}, "InvalidParameterValue", "900"),
    ("SendMessage", {"QueueUrl": "u", "MessageBody": "b", "DelaySeconds": "1"}, "MalformedInput", "DelaySeconds"),
    ("ReceiveMessage", {"QueueUrl": "u", "MaxNumberOfMessages": 11}, "InvalidParameterValue", "between 1 and 10"),
    ("ReceiveMessage", {"QueueUrl": "u", "WaitTimeSeconds": 21}, "InvalidParameterValue", "<= 20"),
    ("ReceiveMessage", {"QueueUrl": "u", "VisibilityTimeout": 43_201}, "InvalidParameterValue", "43200"),
    ("ListQueues", {"MaxResults": 1_001}, "InvalidParameterValue", "MaxResults"),
    ("ListQueues", [], "MalformedInput", ""),
    ("ListQueues", None, "MalformedInput", ""),
    ("DeleteMessageBatch", {"QueueUrl": "u", "Entries": [{"Id": "a"}]}, "MissingParameter", "ReceiptHandle"),
]


@pytest.mark.parametrize(("operation", "given", "error", "said"), BAD)
def test_a_bad_input_is_refused_as_sqs_does(operation: str, given: Any, error: str, said: str) -> None:
    with pytest.raises(SqsError) as refused:
        read_input(msgspec.json.encode(given), INPUTS[operation])
    assert refused.value.code == error and said in refused.value.message


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"QueueNamePrefix":"\\ud800"}', b'{"a":' * 100_000, b'{"QueueNamePrefix":"\xff"}']
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(SqsError, match="MalformedInput"):
        read_input(body, INPUTS["ListQueues"])


def test_unknown_members_and_null_are_ignored() -> None:
    found: Any = read_input(b'{"QueueUrl":"u","WaitTimeSeconds":null,"Future":{"a":[1]}}', INPUTS["ReceiveMessage"])
    assert (found.queue_url, found.wait_time_seconds) == ("u", None)


def test_a_batch_has_up_to_ten_entries_with_distinct_ids() -> None:
    def entries(*ids: str) -> list[Any]:
        body = msgspec.json.encode({"QueueUrl": "u", "Entries": [{"Id": i, "ReceiptHandle": "h"} for i in ids]})
        found: Any = read_input(body, INPUTS["DeleteMessageBatch"])
        return list(found.entries)

    check_entries(entries(*map(str, range(10))), "DeleteMessageBatch")
    for ids, error in (
        ((), "EmptyBatchRequest"),
        (map(str, range(11)), "TooManyEntriesInBatchRequest"),
        (("a", "a"), "BatchEntryIdsNotDistinct"),
        (("a b",), "InvalidBatchEntryId"),
        (("",), "InvalidBatchEntryId"),
        (("x" * 81,), "InvalidBatchEntryId"),
    ):
        with pytest.raises(SqsError, match=re.escape(error)):
            check_entries(entries(*ids), "DeleteMessageBatch")
