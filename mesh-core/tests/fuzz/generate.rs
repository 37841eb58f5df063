//! Protobuf messages of any type, made of a fuzzer's bytes by their descriptors: every field there is can be met, and a
//! good message can be spoiled in the middle.

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use prost_reflect::prost::Message;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage,
    Value,
};

use crate::input;

/// Messages inside each other; deeper ones are made by [`spoil`] again and again.
const DEEPEST: u32 = 5;
const PREFIX: &str = "type.googleapis.com/";

/// Every message the library knows.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(&include_bytes!("../../src/source/file/descriptors.bin")[..])
        .expect("it was made to be read")
});

/// What an `Any` may hold: what stands by itself.
static EXTENSIONS: LazyLock<Vec<MessageDescriptor>> = LazyLock::new(|| {
    let is_one = |message: &MessageDescriptor| {
        let name = message.full_name();
        message.parent_message().is_none() && (name.starts_with("envoy.extensions.") || name.contains("TypedStruct"))
    };
    POOL.all_messages().filter(is_one).collect()
});

/// The descriptor of a type.
pub(crate) fn descriptor(type_url: &str) -> MessageDescriptor {
    POOL.get_message_by_name(type_url).expect("the type is in the set")
}

/// A message of this type.
pub(crate) fn message(of: &MessageDescriptor, u: &mut Unstructured<'_>) -> Result<DynamicMessage> {
    make(of, DEEPEST, u)
}

fn make(of: &MessageDescriptor, depth: u32, u: &mut Unstructured<'_>) -> Result<DynamicMessage> {
    let mut message = DynamicMessage::new(of.clone());
    match of.full_name() {
        "google.protobuf.Any" => fill_any(&mut message, depth, u)?,
        "google.protobuf.Duration" => fill_duration(&mut message, u)?,
        _ => {
            let fields: Vec<FieldDescriptor> = of.fields().collect();
            // Few fields of many: a message with something in each is refused at the first.
            for _ in 0..u.int_in_range(0..=4.min(fields.len()))? {
                let field = u.choose(&fields)?;
                if let Some(value) = field_value(field, depth, u)? {
                    message.set_field(field, value);
                }
            }
        }
    }
    Ok(message)
}

fn fill_any(message: &mut DynamicMessage, depth: u32, u: &mut Unstructured<'_>) -> Result<()> {
    let of = u.choose(&EXTENSIONS)?.clone();
    let mut bytes = if depth == 0 { Vec::new() } else { make(&of, depth - 1, u)?.encode_to_vec() };
    if u.ratio(1, 20)? {
        input::spoil_bytes(&mut bytes, u)?;
    }
    message.set_field_by_name("type_url", Value::String(format!("{PREFIX}{}", of.full_name())));
    message.set_field_by_name("value", Value::Bytes(bytes.into()));
    Ok(())
}

fn fill_duration(message: &mut DynamicMessage, u: &mut Unstructured<'_>) -> Result<()> {
    let sign = if u.ratio(1, 10)? { -1 } else { 1 };
    message.set_field_by_name("seconds", Value::I64(sign * input::number(u)?.cast_signed().saturating_abs()));
    message.set_field_by_name("nanos", Value::I32(i32::try_from(input::number(u)?).unwrap_or(i32::MAX)));
    Ok(())
}

fn field_value(field: &FieldDescriptor, depth: u32, u: &mut Unstructured<'_>) -> Result<Option<Value>> {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { return Ok(None) };
        let mut map = std::collections::HashMap::new();
        for _ in 0..u.int_in_range(0..=2)? {
            if let Some(value) = one(&entry.map_entry_value_field(), depth, u)? {
                map.insert(MapKey::String(input::text(u)?), value);
            }
        }
        let has_text_keys = matches!(entry.map_entry_key_field().kind(), Kind::String);
        return Ok(has_text_keys.then_some(Value::Map(map)));
    }
    if field.cardinality() != Cardinality::Repeated {
        return one(field, depth, u);
    }
    let mut list = Vec::new();
    for _ in 0..u.int_in_range(0..=3)? {
        list.extend(one(field, depth, u)?);
    }
    Ok(Some(Value::List(list)))
}

/// One value of a field; None where messages would be too deep.
fn one(field: &FieldDescriptor, depth: u32, u: &mut Unstructured<'_>) -> Result<Option<Value>> {
    let number = |u: &mut Unstructured<'_>| input::number(u);
    // Each number is cut to its width: any of them will do.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    Ok(Some(match field.kind() {
        Kind::Message(_) if depth == 0 => return Ok(None),
        Kind::Message(of) => Value::Message(make(&of, depth - 1, u)?),
        Kind::Enum(of) => {
            let known: Vec<i32> = of.values().map(|value| value.number()).collect();
            Value::EnumNumber(if u.ratio(1, 8)? { u.arbitrary()? } else { *u.choose(&known)? })
        }
        Kind::String => Value::String(input::text(u)?),
        Kind::Bytes => Value::Bytes(input::text(u)?.into_bytes().into()),
        Kind::Bool => Value::Bool(u.arbitrary()?),
        Kind::Double => Value::F64(if u.ratio(1, 2)? { number(u)? as f64 } else { u.arbitrary()? }),
        Kind::Float => Value::F32(if u.ratio(1, 2)? { number(u)? as f32 } else { u.arbitrary()? }),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number(u)? as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number(u)?.cast_signed()),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number(u)? as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number(u)?),
    }))
}

/// Changes a message in a few places, any of them deep inside.
pub(crate) fn spoil(message: &mut DynamicMessage, u: &mut Unstructured<'_>) -> Result<()> {
    for _ in 0..u.int_in_range(0..=3)? {
        spoil_once(message, u)?;
    }
    Ok(())
}

fn spoil_once(message: &mut DynamicMessage, u: &mut Unstructured<'_>) -> Result<()> {
    let of = message.descriptor();
    if of.full_name() == "google.protobuf.Any" && u.ratio(3, 4)? && spoil_any(message, u)? {
        return Ok(());
    }
    let set: Vec<FieldDescriptor> = message.fields().map(|(field, _)| field).collect();
    if !set.is_empty() && u.ratio(3, 4)? {
        let field = u.choose(&set)?;
        if spoil_inside(message.get_field_mut(field), u)? {
            return Ok(());
        }
        if u.ratio(1, 6)? {
            message.clear_field(field);
        } else if let Some(value) = field_value(field, 2, u)? {
            message.set_field(field, value);
        }
        return Ok(());
    }
    let fields: Vec<FieldDescriptor> = of.fields().collect();
    if fields.is_empty() {
        return Ok(());
    }
    let field = u.choose(&fields)?;
    if let Some(value) = field_value(field, 2, u)? {
        message.set_field(field, value);
    }
    Ok(())
}

/// Whether there was a message to go on in.
fn spoil_inside(value: &mut Value, u: &mut Unstructured<'_>) -> Result<bool> {
    match value {
        Value::Message(inner) => spoil_once(inner, u).map(|()| true),
        Value::List(list) if !list.is_empty() => {
            let at = u.choose_index(list.len())?;
            match u.int_in_range(0..=9)? {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                _ => return spoil_inside(&mut list[at], u),
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Opens the message inside an `Any`, changes it, and closes it again.
fn spoil_any(message: &mut DynamicMessage, u: &mut Unstructured<'_>) -> Result<bool> {
    let name =
        message.get_field_by_name("type_url").and_then(|url| url.as_str().map(str::to_owned)).unwrap_or_default();
    let Some(of) = POOL.get_message_by_name(name.trim_start_matches(PREFIX)) else { return Ok(false) };
    let bytes = message.get_field_by_name("value").and_then(|value| value.as_bytes().cloned()).unwrap_or_default();
    let Ok(mut inner) = DynamicMessage::decode(of, bytes) else { return Ok(false) };
    spoil_once(&mut inner, u)?;
    message.set_field_by_name("value", Value::Bytes(inner.encode_to_vec().into()));
    Ok(true)
}
