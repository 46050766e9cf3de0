/** Protobuf messages read without their descriptors. */
import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { EmptySchema } from "@bufbuild/protobuf/wkt";

/** Number and value of each field whose value has a length: texts, bytes, messages. In the order they stand in. */
export function fieldsOf(message: Uint8Array): [field: number, value: Buffer][] {
  const { $unknown: fields = [] } = fromBinary(EmptySchema, message);
  return fields
    .filter(({ wireType }) => wireType === WireType.LengthDelimited)
    .map(({ no, data }) => [no, Buffer.from(new BinaryReader(data).bytes())]);
}
