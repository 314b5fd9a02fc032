//! Blocks of data: whether they are what their label says.

use saphyr_parser::{Event, Parser};
use serde::de::IgnoredAny;

use crate::text::{Fence, MOST_DEPTH, is_deep};

/// Why it can't be read, if it is of a language that is read here.
pub(super) fn fault(fence: &Fence<'_>) -> Option<String> {
    let body = fence.dedented();
    match fence.label().as_str() {
        "json" => serde_json::from_str::<IgnoredAny>(&body).err().map(|error| error.to_string()),
        "jsonl" | "ndjson" => {
            let values = serde_json::Deserializer::from_str(&body).into_iter::<IgnoredAny>();
            values.filter_map(Result::err).next().map(|error| error.to_string())
        }
        "toml" if is_deep(&body) => Some(deep()),
        "toml" => toml::from_str::<IgnoredAny>(&body).err().map(|error| error.message().to_owned()),
        "yaml" | "yml" => yaml(&body),
        _ => None,
    }
}

fn yaml(text: &str) -> Option<String> {
    let mut parser = Parser::new_from_str(text);
    let mut depth = 0_usize;
    while let Some(event) = parser.next_event() {
        match event {
            Ok((Event::SequenceStart(..) | Event::MappingStart(..), _)) => {
                depth += 1;
                if depth > MOST_DEPTH {
                    return Some(deep());
                }
            }
            Ok((Event::SequenceEnd | Event::MappingEnd, _)) => depth = depth.saturating_sub(1),
            Ok(_) => {}
            Err(error) => return Some(format!("line {}: {}", error.marker().line(), error.info())),
        }
    }
    None
}

fn deep() -> String {
    format!("it nests more than {MOST_DEPTH} levels deep")
}
