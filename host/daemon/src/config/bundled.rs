//! Where the plugins are that came with the program: those of which the config names no component.

use std::path::PathBuf;

use super::env::Surroundings;

const VARIABLE: &str = "COFFERDAM_PLUGINS";

/// The folders to look in, first of all that of the environment.
pub(super) fn places(surroundings: &Surroundings<'_>) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = surroundings.variable(VARIABLE).map(PathBuf::from).into_iter().collect();
    // target/debug/cofferdam finds target/plugins, and bin/cofferdam what is installed beside it.
    if let Some(beside) = surroundings.program().and_then(|program| program.parent()) {
        places.push(beside.join("plugins"));
        if let Some(above) = beside.parent() {
            places.push(above.join("plugins"));
            places.push(above.join("lib/cofferdam/plugins"));
        }
    }
    places
}

/// What is wrong if these plugins are in none of the places.
pub(super) fn missing(names: &[String], places: &[PathBuf]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("plugins.{name}")).collect();
    let (names, have) = match names.as_slice() {
        [one] => (one.clone(), "has no component, and none of that name is"),
        [first @ .., last] => {
            (format!("{} and {last}", first.join(", ")), "have no component, and none of these names is")
        }
        [] => return String::new(),
    };
    let places: Vec<String> =
        places.iter().map(|place| format!("{:?}", place.display().to_string())).collect();
    let looked = match places.as_slice() {
        [] => "known".to_owned(),
        places => format!("in {}", places.join(", ")),
    };
    format!(
        "{names} {have} {looked}; build the bundled plugins with `cargo xtask plugins`, set {VARIABLE} to the folder that has \
         them, or add component = \"path/to/NAME.wasm\""
    )
}
