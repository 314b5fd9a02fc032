//! Role names. The fleet's services spell them differently; all spellings are read.

/// The role behind a name, in the spelling of CreateTasks; a name that is no alias stays itself in upper case.
pub(crate) fn canonical(name: &str) -> String {
    let name = name.trim().to_ascii_uppercase();
    match name.as_str() {
        "DEV" => "DEVELOPER".to_owned(),
        "TESTER" => "QA".to_owned(),
        "ARCH" => "ARCHITECT".to_owned(),
        "PRODUCT_OWNER" => "PO".to_owned(),
        _ => name,
    }
}
