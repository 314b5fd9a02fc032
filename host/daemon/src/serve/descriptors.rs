//! What a set of file descriptors says: services, the types of their requests, and where in a request its key is.

use std::fmt;

use bytes::Bytes;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor, Value,
};

/// An encoded `google.protobuf.FileDescriptorSet`, with its imports.
#[derive(Clone)]
pub struct Descriptors {
    bytes: Bytes,
    pool: DescriptorPool,
}

impl Descriptors {
    pub(crate) fn read(bytes: Bytes) -> Result<Self, String> {
        let pool = DescriptorPool::decode(bytes.clone()).map_err(|error| error.to_string())?;
        Ok(Self { bytes, pool })
    }

    /// As they were read.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn service(&self, name: &str) -> Option<ServiceDescriptor> {
        self.pool.get_service_by_name(name)
    }

    /// Their names.
    pub(crate) fn services(&self) -> Vec<String> {
        self.pool.services().map(|service| service.full_name().to_owned()).collect()
    }
}

impl PartialEq for Descriptors {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

/// Without what is in them, which is long.
impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Descriptors({} bytes)", self.bytes.len())
    }
}

/// The field of a request that is the call's key, and the messages around it.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyField(Vec<FieldDescriptor>);

impl KeyField {
    /// By its name, with dots between those of nested fields.
    pub(crate) fn find(input: &MessageDescriptor, path: &str) -> Result<Self, String> {
        let mut message = input.clone();
        let mut fields = Vec::new();
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let Some(field) = message.get_field_by_name(name) else {
                let known: Vec<String> = message.fields().map(|field| field.name().to_owned()).collect();
                return Err(format!(
                    "{} has no field {name:?}; it has: {}",
                    message.full_name(),
                    known.join(", ")
                ));
            };
            if field.is_list() || field.is_map() {
                return Err(format!("{name:?} has several values; a key is one string or integer"));
            }
            let kind = field.kind();
            fields.push(field);
            match (kind, names.peek()) {
                (Kind::Message(inner), Some(_)) => message = inner,
                (Kind::Message(inner), None) => {
                    return Err(format!(
                        "{name:?} is a message; name a string or integer in it, such as \"{path}.{}\"",
                        inner
                            .fields()
                            .next()
                            .map_or_else(|| "id".to_owned(), |field| field.name().to_owned())
                    ));
                }
                (_, Some(inner)) => return Err(format!("{name:?} is no message, so it has no {inner:?}")),
                (kind, None) if !is_key(&kind) => {
                    return Err(format!("{name:?} is neither a string nor an integer"));
                }
                (_, None) => {}
            }
        }
        Ok(Self(fields))
    }

    /// What a request has there; nothing if that is empty.
    pub(crate) fn of(&self, request: &DynamicMessage) -> Option<String> {
        let (last, outer) = self.0.split_last()?;
        let mut message = request.clone();
        for field in outer {
            let Value::Message(inner) = message.get_field(field).into_owned() else { return None };
            message = inner;
        }
        let key = match &*message.get_field(last) {
            // White space around an id is no part of it, as in events.
            Value::String(text) => text.trim().to_owned(),
            Value::I32(number) => number.to_string(),
            Value::I64(number) => number.to_string(),
            Value::U32(number) => number.to_string(),
            Value::U64(number) => number.to_string(),
            _ => return None,
        };
        (!key.is_empty()).then_some(key)
    }
}

fn is_key(kind: &Kind) -> bool {
    use Kind::{Fixed32, Fixed64, Int32, Int64, Sfixed32, Sfixed64, Sint32, Sint64, String, Uint32, Uint64};
    matches!(
        kind,
        String | Int32 | Int64 | Uint32 | Uint64 | Sint32 | Sint64 | Fixed32 | Fixed64 | Sfixed32 | Sfixed64
    )
}
