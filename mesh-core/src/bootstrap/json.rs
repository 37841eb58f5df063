//! Reading JSON with the path of each field at hand, so that a fault can name it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

/// The most seconds a `google.protobuf.Duration` can hold.
const MAX_SECONDS: u64 = 315_576_000_000;

/// A broken rule, at a field.
pub(crate) type Fault = crate::decode::Fault;

/// A JSON object and where it is.
pub(crate) struct Object<'a> {
    map: &'a Map<String, Value>,
    path: Path<'a>,
}

/// Where a value is: a list of names that grows toward the inside.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, &'a str, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Path::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Index(Path::Root, name, index) => write!(f, "{name}[{index}]"),
            Self::Index(parent, name, index) => write!(f, "{parent}.{name}[{index}]"),
        }
    }
}

impl<'a> Object<'a> {
    /// The value at `path`, which must be an object.
    pub(crate) fn new(value: &'a Value, path: Path<'a>) -> Result<Self, Fault> {
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            other => Err(Fault::new(path.to_string(), format!("must be an object, and is {}", kind(other)))),
        }
    }

    pub(crate) fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// A fault at the field `name`.
    pub(crate) fn fault(&self, name: &str, rule: impl Into<String>) -> Fault {
        Fault::new(Path::Field(&self.path, name).to_string(), rule)
    }

    /// The field's value; None if it is absent or null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Refuses every field that is not in `known`: for formats in which a field that is passed over would be missed.
    #[cfg(feature = "file")]
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), Fault> {
        let unknown = self.map.keys().find(|name| !known.contains(&name.as_str()) && self.get(name).is_some());
        unknown.map_or(Ok(()), |name| {
            Err(self.fault(name, format!("is not supported here; the fields are {}", known.join(", "))))
        })
    }

    /// A whole number in `range`.
    #[cfg(feature = "file")]
    pub(crate) fn number(&self, name: &str, range: std::ops::RangeInclusive<u32>) -> Result<Option<u32>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            let (first, last) = range.into_inner();
            self.fault(name, format!("must be a whole number from {first} to {last}"))
        })
    }

    pub(crate) fn string(&self, name: &str) -> Result<Option<&'a str>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.fault(name, format!("must be a string, and is {}", kind(other)))),
        }
    }

    /// A string that must be there and not be empty.
    pub(crate) fn required(&self, name: &str) -> Result<&'a str, Fault> {
        match self.string(name)? {
            Some("") => Err(self.fault(name, "must not be empty")),
            Some(text) => Ok(text),
            None => Err(self.fault(name, "is missing")),
        }
    }

    /// A path; an empty one counts as absent.
    pub(crate) fn file(&self, name: &str) -> Result<Option<PathBuf>, Fault> {
        Ok(self.string(name)?.filter(|text| !text.is_empty()).map(PathBuf::from))
    }

    pub(crate) fn bool(&self, name: &str) -> Result<bool, Fault> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(self.fault(name, format!("must be true or false, and is {}", kind(other)))),
        }
    }

    /// A duration as proto-JSON writes it: `1.5s`.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>, Fault> {
        let Some(text) = self.string(name)? else { return Ok(None) };
        duration(text)
            .map(Some)
            .ok_or_else(|| self.fault(name, format!("must be a duration like \"600s\" or \"0.5s\", and is \"{text}\"")))
    }

    /// An array; None if it is absent.
    pub(crate) fn array(&self, name: &str) -> Result<Option<&'a [Value]>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(other) => Err(self.fault(name, format!("must be an array, and is {}", kind(other)))),
        }
    }

    /// The objects of an array, each read by `read`.
    pub(crate) fn objects<T>(
        &self,
        name: &str,
        mut read: impl FnMut(&Object<'_>) -> Result<T, Fault>,
    ) -> Result<Option<Vec<T>>, Fault> {
        let Some(values) = self.array(name)? else { return Ok(None) };
        let read = |(index, value)| read(&Object::new(value, Path::Index(&self.path, name, index))?);
        values.iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// The object in the field `name`, read by `read`.
    pub(crate) fn object<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Object<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(&Object::new(value, Path::Field(&self.path, name))?).map(Some)
    }

    /// The objects in the fields of the object `name`, each read by `read`, which is given the field's name.
    pub(crate) fn entries<T>(
        &self,
        name: &str,
        mut read: impl FnMut(&str, &Object<'_>) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let entries = self.object(name, |outer| {
            outer
                .map
                .iter()
                .map(|(key, value)| read(key, &Object::new(value, Path::Field(&outer.path, key))?))
                .collect()
        })?;
        Ok(entries.unwrap_or_default())
    }
}

/// What a value is, in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Reads `seconds[.fraction]s`, at most nine digits of fraction and not negative.
fn duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let seconds = whole.parse().ok().filter(|seconds| *seconds <= MAX_SECONDS)?;
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_proto_json() {
        assert_eq!(duration("600s"), Some(Duration::from_secs(600)));
        assert_eq!(duration("0.25s"), Some(Duration::from_millis(250)));
        assert_eq!(duration("315576000000s"), Some(Duration::from_secs(MAX_SECONDS)));
        for bad in ["", "s", "10", "10m", "-1s", "+1s", "1.s", ".5s", "1.0000000001s", "315576000001s", "1e3s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
