//! Whether two requests are the same: a hash of what they say, however they were encoded. Fields may come in any order, and the
//! entries of maps do.

use prost_reflect::{DynamicMessage, MapKey, Value};
use sha2::{Digest, Sha256};

pub(super) fn of(request: &DynamicMessage) -> [u8; 32] {
    let mut hash = Sha256::new();
    message(&mut hash, request);
    hash.finalize().into()
}

/// Each part with its kind and length before it, so that none is taken for another.
fn part(hash: &mut Sha256, kind: u8, bytes: &[u8]) {
    hash.update([kind]);
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

fn message(hash: &mut Sha256, message: &DynamicMessage) {
    let fields = message.fields().map(|(field, value)| (field.number(), value));
    let extensions = message.extensions().map(|(extension, value)| (extension.number(), value));
    for (number, value) in fields.chain(extensions) {
        part(hash, b'f', &number.to_be_bytes());
        self::value(hash, value);
    }
    for unknown in message.unknown_fields() {
        let mut bytes = Vec::new();
        unknown.encode(&mut bytes);
        part(hash, b'u', &bytes);
    }
    part(hash, b'.', &[]);
}

fn value(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Bool(value) => part(hash, b'b', &[u8::from(*value)]),
        Value::I32(value) => part(hash, b'i', &value.to_be_bytes()),
        Value::EnumNumber(value) => part(hash, b'e', &value.to_be_bytes()),
        Value::I64(value) => part(hash, b'I', &value.to_be_bytes()),
        Value::U32(value) => part(hash, b'n', &value.to_be_bytes()),
        Value::U64(value) => part(hash, b'N', &value.to_be_bytes()),
        Value::F32(value) => part(hash, b'd', &value.to_bits().to_be_bytes()),
        Value::F64(value) => part(hash, b'D', &value.to_bits().to_be_bytes()),
        Value::String(value) => part(hash, b's', value.as_bytes()),
        Value::Bytes(value) => part(hash, b'y', value),
        Value::Message(value) => message(hash, value),
        Value::List(values) => {
            part(hash, b'l', &(values.len() as u64).to_be_bytes());
            values.iter().for_each(|value| self::value(hash, value));
        }
        Value::Map(entries) => {
            part(hash, b'm', &(entries.len() as u64).to_be_bytes());
            let mut entries: Vec<(&MapKey, &Value)> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            for (key, value) in entries {
                self::value(hash, &Value::from(key.clone()));
                self::value(hash, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    fn decoded(name: &str, bytes: &[u8]) -> DynamicMessage {
        let pool = DescriptorPool::decode(fleet_proto::FILE_DESCRIPTOR_SET).unwrap();
        DynamicMessage::decode(pool.get_message_by_name(name).unwrap(), bytes).unwrap()
    }

    #[test]
    fn the_order_of_fields_and_of_a_maps_entries_says_nothing() {
        // A map field is a list of messages on the wire: {1: key, 2: value}.
        let pool = DescriptorPool::decode(fleet_proto::FILE_DESCRIPTOR_SET).unwrap();
        let (message, field) = pool
            .all_messages()
            .find_map(|message| {
                let field = message.fields().find(|field| field.is_map())?;
                let entry = matches!(field.kind(), prost_reflect::Kind::Message(entry)
                    if entry.map_entry_value_field().kind() == prost_reflect::Kind::String);
                entry.then(|| (message.full_name().to_owned(), field.number()))
            })
            .unwrap();
        let entry = |key: &str, value: &str| {
            let tag = u8::try_from(field << 3 | 2).unwrap();
            let mut bytes = vec![tag, 4 + 2];
            bytes.extend([10, 1, key.as_bytes()[0], 18, 1, value.as_bytes()[0]]);
            bytes
        };
        let one = decoded(&message, &[entry("a", "1"), entry("b", "2")].concat());
        let other = decoded(&message, &[entry("b", "2"), entry("a", "1")].concat());
        assert_eq!(of(&one), of(&other));
        assert_ne!(of(&one), of(&decoded(&message, &[entry("a", "2"), entry("b", "1")].concat())));
        assert_ne!(of(&one), of(&decoded(&message, &entry("a", "1"))));
    }

    #[test]
    fn what_is_said_counts_also_where_nobody_knows_it() {
        let request = "fleet.workflow.v1.GetWorkflowStateRequest";
        let named = |name: &str| decoded(request, &[&[10, 1][..], name.as_bytes()].concat());
        assert_eq!(of(&named("a")), of(&named("a")));
        assert_ne!(of(&named("a")), of(&named("b")));
        // A field that is no part of it.
        assert_ne!(of(&decoded(request, &[])), of(&decoded(request, &[0xf8, 7, 1])));
        // The default, written out, is what is not there.
        assert_eq!(of(&decoded(request, &[])), of(&decoded(request, &[10, 0])));
    }
}
