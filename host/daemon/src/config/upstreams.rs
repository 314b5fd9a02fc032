//! `[upstreams.NAME]` and the variables that move them: addresses, what protects the way there, and which calls may be
//! repeated. Protection that is configured is never lost in silence.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use toml::Value;

use super::{
    UnknownOutcome, Upstream, Url,
    env::{Surroundings, UPSTREAMS},
    methods::methods,
    paths::{certificate, file},
    reader::Table,
    settings::Origin,
    token::token,
    words::{bad_name, is_name},
};

/// Five seconds, as the fleet's services expect of each other.
const RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// Within a second, as long as most hiccups take; who needs more sets a time-out that has room for it.
const RETRIES: u32 = 3;
const EXAMPLE: &str = "\"http://host:port\" or \"https://host:port\"";
/// What is of use on a way out of the machine only.
const PROTECTION: [&str; 3] = ["ca", "certificate", "domain"];

pub(super) fn upstreams(table: &Table<'_>, surroundings: &Surroundings<'_>) -> BTreeMap<String, Upstream> {
    let mut all = BTreeMap::new();
    for (name, table) in table.named_tables() {
        if !is_name(&name) {
            table.fault(bad_name(&name));
        }
        all.insert(name.clone(), upstream(&name, &table, surroundings));
        table.finish();
    }
    for (variable, name) in UPSTREAMS {
        if !all.contains_key(name) && surroundings.has(variable) {
            all.insert(name.to_owned(), upstream(name, &table.table_or_empty(name), surroundings));
        }
    }
    all
}

fn upstream(name: &str, table: &Table<'_>, surroundings: &Surroundings<'_>) -> Upstream {
    let own = table.is_there().then(|| table.required("address", "\"http://127.0.0.1:50051\"")).flatten();
    let own = own.and_then(|text| {
        let address = Address::parse(&text.value, false);
        if address.is_none() {
            table.fault_at(
                &text,
                wrong(&format!("upstreams.{name}.address"), &text.value, "not a URL with a port"),
            );
        }
        address
    });
    let variable = UPSTREAMS.into_iter().find(|(_, n)| *n == name).map(|(variable, _)| variable);
    let https = own.as_ref().is_some_and(|a| a.https);
    let moved = variable.and_then(|v| Some((v, moved(v, https, surroundings)?)));
    if let Some((variable, address)) = &moved {
        table.set("address", Value::from(address.url.as_str()), Origin::Variable((*variable).to_owned()));
    }
    let ca = file(table, "ca", &surroundings.base);
    let certificate = certificate(table, &surroundings.base);
    let domain = table.text("domain").optional();
    let token = token(table, surroundings);
    let timeout = table.duration("timeout").or(RPC_TIMEOUT);
    let used = moved.as_ref().map(|(_, address)| address).or(own.as_ref());
    if let Some(lost) = used.and_then(|a| a.lost(table, token.is_some())) {
        match &moved {
            Some((variable, address)) if address.url == Upstream::OWN => surroundings
                .fault(format!("{variable} is \"self\", and upstreams.{name} has {lost}; remove it there")),
            None if used.is_some_and(|address| address.url == Upstream::OWN) => table
                .fault_of("address", format!("upstreams.{name} has {lost}; remove it, or write {EXAMPLE}")),
            Some((variable, address)) => surroundings.fault(format!(
                "{variable} is {:?}, and upstreams.{name} has {lost}; write https://, or remove it there",
                address.url
            )),
            None => table
                .fault_of("address", format!("upstreams.{name} has {lost}; write https://, or remove it")),
        }
    }
    let address = used.map(|a| a.url.clone()).unwrap_or_default();
    let once = methods(table, "once");
    let unknown_outcome = table.parsed_or("unknown-outcome", "repeat", "repeat or ask", |s| match s {
        "repeat" => Some(UnknownOutcome::Repeat),
        "ask" => Some(UnknownOutcome::Ask),
        _ => None,
    });
    Upstream {
        address,
        timeout,
        ca,
        certificate,
        domain,
        token,
        once,
        unknown_outcome: unknown_outcome.unwrap_or(UnknownOutcome::Repeat),
        idempotent: methods(table, "idempotent"),
        retries: table.integer("retries", 0, 100).or(RETRIES),
    }
}

/// The address that a variable sets. Without a scheme it keeps the one that is configured.
fn moved(variable: &str, https: bool, surroundings: &Surroundings<'_>) -> Option<Address> {
    let text = surroundings.variable(variable)?;
    let address = Address::parse(&text, https).unwrap_or_else(|| {
        surroundings.fault(wrong(variable, &text, "neither host:port nor a URL with a port"));
        // There is an address all the same: nothing else is wrong for the want of one.
        Address { url: String::new(), https: true, loopback: false }
    });
    Some(address)
}

/// What is wrong with an address that is none.
fn wrong(what: &str, text: &str, which: &str) -> String {
    let shown = Url::new(text);
    let without_user = text.rsplit_once('@').map(|(front, place)| match front.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://{place}"),
        None => place.to_owned(),
    });
    match without_user.filter(|url| Address::parse(url, false).is_some()) {
        Some(url) => format!(
            "{what} is {shown:?}, and no upstream is sent the user and password of a URL; write {url:?}, and name a token \
             with token-file or token-env"
        ),
        None => format!("{what} is {shown:?}, which is {which}; write {EXAMPLE}"),
    }
}

struct Address {
    url: String,
    https: bool,
    loopback: bool,
}

impl Address {
    /// `host:port` as the fleet writes it, or a URL; no path, and no user, whom nobody would send.
    fn parse(text: &str, https: bool) -> Option<Self> {
        if text == Upstream::OWN {
            return Some(Self { url: text.to_owned(), https: false, loopback: true });
        }
        let scheme = if https { "https" } else { "http" };
        let url = if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") };
        let parsed: http::Uri = url.parse().ok()?;
        let https = match parsed.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let bare = !parsed.authority()?.as_str().contains('@') && matches!(parsed.path(), "" | "/");
        let host = parsed.host()?;
        let there = !host.is_empty() && parsed.port_u16().is_some_and(|p| p > 0);
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let loopback = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
        (bare && there && parsed.query().is_none()).then_some(Self { url, https, loopback })
    }

    /// What is configured for the way there and would not protect it.
    fn lost(&self, table: &Table<'_>, token: bool) -> Option<String> {
        if self.https {
            return None;
        }
        let kept = PROTECTION.into_iter().find(|key| table.has(key));
        if self.url == Upstream::OWN {
            let kept = kept.or_else(|| ["token-file", "token-env"].into_iter().find(|key| table.has(key)));
            return kept.map(|key| format!("{key}, which a call in memory has no use for"));
        }
        match kept {
            Some(key) => Some(format!("{key}, which plain http has no use for")),
            None if token && !self.loopback => {
                Some("a token, which plain http would show to everybody on the way".to_owned())
            }
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port_and_nothing_else() {
        for (text, https, url) in [
            ("a:1", false, "http://a:1"),
            ("a:1", true, "https://a:1"),
            ("http://a:1", true, "http://a:1"),
            ("https://a:1/", false, "https://a:1/"),
            ("[::1]:1", false, "http://[::1]:1"),
            ("self", true, "self"),
        ] {
            assert_eq!(Address::parse(text, https).unwrap().url, url);
        }
        for bad in [
            "a",
            ":1",
            "a:0",
            "a:65536",
            "http://a",
            "ftp://a:1",
            "http://u:p@a:1",
            "a:1/path",
            "a:1?q",
            "self:1/x",
            "Self",
            "a b:1",
            "",
        ] {
            assert!(Address::parse(bad, false).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_own_machine_is_known() {
        for (text, loopback) in [
            ("localhost:1", true),
            ("127.0.0.9:1", true),
            ("[::1]:1", true),
            ("10.0.0.1:1", false),
            ("a:1", false),
        ] {
            assert_eq!(Address::parse(text, false).unwrap().loopback, loopback, "{text}");
        }
    }
}
