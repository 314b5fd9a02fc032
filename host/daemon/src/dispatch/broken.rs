//! A host broken on purpose, so that a test can show what becomes of an event that kills it. In no release build.

/// What `$COFFERDAM_BROKEN` says then, with the subject of the events after it.
const DIE_ON: &str = "die-on:";

/// Dies at once if the environment says so of this subject.
pub(super) fn die_on(subject: &str) {
    let broken = std::env::var("COFFERDAM_BROKEN").unwrap_or_default();
    if broken.strip_prefix(DIE_ON).is_some_and(|deadly| deadly == subject) {
        tracing::error!(subject, "this event is made to kill the host");
        std::process::abort();
    }
}
