//! Secrets: values that no log, error or page can show.

use std::fmt;

#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A URL, or what was meant to be one: shown without the user and password that may stand in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Is it one that was shown, not the one that was meant?
    pub(super) fn is_shown(text: &str) -> bool {
        let rest = text.split_once("://").map_or("", |(_, rest)| rest);
        rest.starts_with("***@") || text.starts_with("***@") && !rest.is_empty()
    }

    /// The whole, for the one place that connects.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The last @: a password may have another, and may have a slash.
        let Some(at) = self.0.rfind('@') else { return f.write_str(&self.0) };
        let scheme = self.0.find("://").filter(|s| *s < at).map_or("", |s| &self.0[..s + 3]);
        write!(f, "{scheme}***{}", &self.0[at..])
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "[secret]");
    }

    #[test]
    fn a_url_is_printed_without_user_and_password() {
        for (url, shown) in [
            ("nats://a:4222", "nats://a:4222"),
            ("nats://me:hunter2@a:4222", "nats://***@a:4222"),
            ("nats://me:hun@ter/2@a", "nats://***@a"),
            ("nats://hunter2@a", "nats://***@a"),
            ("me:hunter2@a:4222", "***@a:4222"),
            ("me:hunter2@nats://a", "***@nats://a"),
        ] {
            assert_eq!(Url::new(url).to_string(), shown);
            assert_eq!(format!("{:?}", Url::new(url)), format!("{shown:?}"));
            assert_eq!(Url::new(url).reveal(), url);
            assert!(!Url::is_shown(url), "{url}");
            assert_eq!(Url::is_shown(shown), shown.contains("://") && shown != url, "{shown}");
        }
    }
}
