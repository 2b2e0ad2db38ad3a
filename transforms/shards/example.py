"""tf.train.Example without TensorFlow: its message is declared here, protobuf parses it.

message Example  { Features features = 1; }
message Features { map<string, Feature> feature = 1; }
message Feature  { oneof kind { BytesList bytes_list = 1; FloatList float_list = 2;
                                Int64List int64_list = 3; } }
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

Features = Mapping[str, Sequence[bytes | float | int]]

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "adalabel.example"


class BrokenExample(Exception):  # noqa: N818 - what happened, not that it is an error, matters
    """The bytes are no tf.train.Example."""


def parse_example(data: bytes) -> Features:
    """The values of each feature; raises BrokenExample."""
    try:
        example = _EXAMPLE.FromString(data)
        return {
            name: getattr(feature, kind).value
            for name, feature in example.features.feature.items()
            if (kind := feature.WhichOneof("kind"))
        }
    except (DecodeError, ValueError) as error:  # a name that is no UTF-8 is a ValueError
        raise BrokenExample(f"no tf.train.Example: {error}") from error


def serialized_example(features: Features) -> bytes:
    """An Example of these values, as `parse_example` reads it."""
    example = _EXAMPLE()
    for name, values in features.items():
        feature = example.features.feature[name]
        if all(isinstance(value, bytes) for value in values):
            feature.bytes_list.value.extend(values)
        elif all(isinstance(value, int) for value in values):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(values)
    return bytes(example.SerializeToString())


def _message_class() -> Any:  # noqa: ANN401 - protobuf makes the class at run time
    file = descriptor_pb2.FileDescriptorProto(
        name="adalabel/example.proto", package=_PACKAGE, syntax="proto3"
    )
    lists = {"Bytes": _FIELD.TYPE_BYTES, "Float": _FIELD.TYPE_FLOAT, "Int64": _FIELD.TYPE_INT64}
    feature = descriptor_pb2.DescriptorProto(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind) in enumerate(lists.items(), start=1):
        values = file.message_type.add(name=f"{name}List")
        values.field.add(name="value", number=1, type=kind, label=_FIELD.LABEL_REPEATED)
        field = _field(feature, f"{name.lower()}_list", number, f"{name}List")
        field.oneof_index = 0
    file.message_type.append(feature)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    _field(entry, "value", 2, "Feature")
    _field(features, "feature", 1, "Features.FeatureEntry").label = _FIELD.LABEL_REPEATED
    _field(file.message_type.add(name="Example"), "features", 1, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName(f"{_PACKAGE}.Example")
    return message_factory.GetMessageClass(found)


def _field(message: Any, name: str, number: int, kind: str) -> Any:  # noqa: ANN401 - as above
    return message.field.add(
        name=name,
        number=number,
        type=_FIELD.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.{kind}",
        label=_FIELD.LABEL_OPTIONAL,
    )


_EXAMPLE = _message_class()
