//! Something that is tried again and again is told of once: when it begins to fail, when the reason becomes another,
//! and when it is over.

#[derive(Debug, Default)]
pub(crate) struct Trouble(Option<String>);

impl Trouble {
    /// Whether this failure is worth a line. What differs only in the cause below the outermost words is not.
    pub(crate) fn is_news(&mut self, error: &anyhow::Error) -> bool {
        let reason = error.to_string();
        let news = self.0.as_ref() != Some(&reason);
        self.0 = Some(reason);
        news
    }

    /// Whether there was one until now.
    pub(crate) fn is_over(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_trouble_is_news_when_it_begins_changes_or_begins_again() {
        let mut trouble = Trouble::default();
        assert!(!trouble.is_over());
        let told: Vec<bool> = [("a", "x"), ("a", "y"), ("b", "x"), ("a", "x")]
            .map(|(reason, cause)| trouble.is_news(&anyhow!(cause).context(reason)))
            .to_vec();
        assert_eq!(told, [true, false, true, true]);
        assert!(trouble.is_over());
        assert!(trouble.is_news(&anyhow!("a")));
    }
}
