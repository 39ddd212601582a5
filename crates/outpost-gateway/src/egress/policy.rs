//! What an attempt may reach: pure decisions.
//!
//! A policy allows, the operator's floor takes away, and what either of them denies stays denied. Nothing a
//! policy says can widen the floor. Bounded: rules. Absent: addresses, which are judged when a name was resolved.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::EgressReason;
use super::address::{self, Cidr};
use super::host::Host;

/// Most rules of a policy or a floor, allowing and denying ones together.
pub const EGRESS_RULES_MAX: usize = 1024;
/// Most ports of a rule.
const RULE_PORTS_MAX: usize = 16;
/// Longest rule, bytes.
const RULE_BYTES_MAX: usize = 512;
/// Names of metadata services: of Google, and of AWS as EC2 resolves them.
const METADATA_NAMES: [&str; 6] = [
    "metadata.google.internal",
    "metadata.goog",
    "metadata",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.azure.internal",
];

/// Why rules cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// Not a rule.
    #[error(
        "`{0}` is no rule: write a host such as `example.com`, `*.example.com` for everything below it, or an \
         address, and ports after a colon such as `example.com:443,8443` if others than the usual are meant"
    )]
    BadRule(String),
    /// Not a range of addresses.
    #[error("`{0}` is no range of addresses: write it as `10.0.0.0/8` or `fd00::/8`")]
    BadCidr(String),
    /// Too many.
    #[error(
        "there are {0} rules, at most {EGRESS_RULES_MAX} are allowed: use `*.` for whole domains"
    )]
    TooManyRules(usize),
}

/// How much is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressLevel {
    /// Nothing.
    #[default]
    None,
    /// Package registries and code hosts.
    Trusted,
    /// What the policy's own rules say.
    Custom,
}

/// Hosts and ports. Written `host`, `*.host` or an address, with `:port,port` where others than 443 for tunnels
/// and 80 for plain http are meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EgressRule {
    host: RuleHost,
    ports: BTreeSet<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum RuleHost {
    Exact(Host),
    /// Everything below it, but not the name itself.
    Below(String),
}

/// What an attempt may reach.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EgressPolicy {
    /// How much is open.
    pub level: EgressLevel,
    /// With `custom`: what is.
    pub allow: Vec<EgressRule>,
    /// With `custom`: whether what `trusted` opens is open, too.
    pub trusted: bool,
    /// What is not, whatever else says so.
    pub deny: Vec<EgressRule>,
}

/// What the operator allows at most.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EgressFloor {
    /// All that may be opened; `None` is anything.
    pub allow: Option<Vec<EgressRule>>,
    /// What may not.
    pub deny: Vec<EgressRule>,
    /// Ranges that are not public and may be reached all the same, by a name or address that a rule allows.
    /// Metadata services stay closed.
    pub private: Vec<Cidr>,
}

/// The way a host is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// `CONNECT`.
    Tunnel,
    /// Plain http.
    Plain,
}

impl Way {
    pub(crate) const fn default_port(self) -> u16 {
        match self {
            Self::Tunnel => 443,
            Self::Plain => 80,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trusted {
    hosts: BTreeSet<String>,
    plain_http: BTreeSet<String>,
}

static TRUSTED: LazyLock<Trusted> = LazyLock::new(|| {
    toml::from_str(include_str!("trusted.toml")).expect("the list is checked by a test")
});

impl EgressRule {
    fn matches(&self, host: &Host, port: u16, way: Way) -> bool {
        let port = if self.ports.is_empty() {
            port == way.default_port()
        } else {
            self.ports.contains(&port)
        };
        port && self.names(host)
    }

    fn names(&self, host: &Host) -> bool {
        match (&self.host, host) {
            (RuleHost::Exact(exact), host) => exact == host,
            (RuleHost::Below(base), Host::Name(name)) => {
                name.strip_suffix(base.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
            (RuleHost::Below(_), Host::Address(_)) => false,
        }
    }

    /// What is denied without ports is denied on all of them.
    fn denies(&self, host: &Host, port: u16) -> bool {
        (self.ports.is_empty() || self.ports.contains(&port)) && self.names(host)
    }
}

impl FromStr for EgressRule {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        let shown = &text[..text.floor_char_boundary(RULE_BYTES_MAX)];
        let bad = || EgressError::BadRule(shown.escape_debug().to_string());
        let at = text.rfind(':').filter(|at| !text[*at..].contains(']'));
        let (host, ports) = at.map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
        let mut set = BTreeSet::new();
        for port in ports.iter().flat_map(|ports| ports.split(',')) {
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            let port = digits.then(|| port.parse::<u16>().ok()).flatten();
            set.insert(port.filter(|port| *port != 0).ok_or_else(bad)?);
        }
        if text.len() > RULE_BYTES_MAX || set.len() > RULE_PORTS_MAX {
            return Err(bad());
        }
        let ascii = |name: &str| match name.is_ascii() {
            true => Some(name.to_owned()),
            // People write names in their own letters; requests carry the other form.
            false => match url::Host::parse(name) {
                Ok(url::Host::Domain(name)) => Some(name),
                _ => None,
            },
        };
        let host = match host.strip_prefix("*.") {
            Some(base) => match Host::parse(&ascii(base).ok_or_else(bad)?) {
                Some(Host::Name(base)) => RuleHost::Below(base),
                _ => return Err(bad()),
            },
            None => RuleHost::Exact(Host::parse(&ascii(host).ok_or_else(bad)?).ok_or_else(bad)?),
        };
        Ok(Self { host, ports: set })
    }
}

impl fmt::Display for EgressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            RuleHost::Exact(host) => write!(f, "{host}")?,
            RuleHost::Below(base) => write!(f, "*.{base}")?,
        }
        for (index, port) in self.ports.iter().enumerate() {
            write!(f, "{}{port}", if index == 0 { ':' } else { ',' })?;
        }
        Ok(())
    }
}

impl Serialize for EgressRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EgressRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl EgressPolicy {
    /// Whether it has no more rules than it may.
    ///
    /// # Errors
    /// [`EgressError::TooManyRules`].
    pub fn check(&self) -> Result<(), EgressError> {
        let count = self.allow.len() + self.deny.len();
        if count > EGRESS_RULES_MAX { Err(EgressError::TooManyRules(count)) } else { Ok(()) }
    }

    /// Whether it opens any host, as far as its own rules go.
    pub(crate) fn opens_anything(&self) -> bool {
        match self.level {
            EgressLevel::None => false,
            EgressLevel::Trusted => true,
            EgressLevel::Custom => self.trusted || !self.allow.is_empty(),
        }
    }

    fn allows(&self, host: &Host, port: u16, way: Way) -> bool {
        let trusted = || {
            let list = match way {
                Way::Tunnel => &TRUSTED.hosts,
                Way::Plain => &TRUSTED.plain_http,
            };
            let Host::Name(name) = host else { return false };
            port == way.default_port() && list.contains(name)
        };
        let open = match self.level {
            EgressLevel::None => false,
            EgressLevel::Trusted => trusted(),
            EgressLevel::Custom => {
                self.allow.iter().any(|rule| rule.matches(host, port, way))
                    || (self.trusted && trusted())
            }
        };
        open && !self.deny.iter().any(|rule| rule.denies(host, port))
    }
}

impl EgressFloor {
    fn allows(&self, host: &Host, port: u16, way: Way) -> bool {
        let open = self.allow.as_ref();
        let open = open.is_none_or(|rules| rules.iter().any(|rule| rule.matches(host, port, way)));
        open && !self.deny.iter().any(|rule| rule.denies(host, port))
    }
}

/// Whether a host may be asked for, before its name is resolved.
pub(crate) fn decide(
    policy: &EgressPolicy,
    floor: &EgressFloor,
    (host, port): (&Host, u16),
    way: Way,
) -> Result<(), EgressReason> {
    match host {
        Host::Name(name) if METADATA_NAMES.contains(&name.as_str()) => {
            return Err(EgressReason::Metadata);
        }
        Host::Name(_) => {}
        Host::Address(address) => judge_address(*address, floor)?,
    }
    if !floor.allows(host, port, way) {
        return Err(EgressReason::OperatorDenied);
    }
    if policy.allows(host, port, way) { Ok(()) } else { Err(EgressReason::NotAllowed) }
}

/// Whether a connection may go to an address.
pub(crate) fn judge_address(address: IpAddr, floor: &EgressFloor) -> Result<(), EgressReason> {
    address::judge(address, &floor.private)
}

/// The rule with which a human could allow it; `None` when no rule can.
pub(crate) fn suggestion(reason: EgressReason, host: &Host, port: u16, way: Way) -> Option<String> {
    let usual = port == way.default_port();
    let rule = if usual { host.to_string() } else { format!("{host}:{port}") };
    (reason == EgressReason::NotAllowed).then_some(rule)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(texts: &[&str]) -> Vec<EgressRule> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn custom(allow: &[&str], deny: &[&str]) -> EgressPolicy {
        EgressPolicy {
            level: EgressLevel::Custom,
            allow: rules(allow),
            deny: rules(deny),
            trusted: false,
        }
    }

    fn verdict(
        policy: &EgressPolicy,
        floor: &EgressFloor,
        host: &str,
        way: Way,
    ) -> Result<(), EgressReason> {
        let (host, port) = Host::with_port(host, Some(way.default_port())).unwrap();
        decide(policy, floor, (&host, port), way)
    }

    #[test]
    fn levels_and_rules_open_what_they_say() {
        let open = EgressFloor::default();
        let none = EgressPolicy::default();
        let trusted = EgressPolicy { level: EgressLevel::Trusted, ..EgressPolicy::default() };
        let policy = custom(&["example.com", "*.sub.org:443,8443", "1.1.1.1"], &["bad.sub.org"]);
        let no = Err(EgressReason::NotAllowed);
        let cases = [
            (&none, "github.com", Way::Tunnel, no),
            (&trusted, "github.com", Way::Tunnel, Ok(())),
            (&trusted, "GitHub.com.", Way::Tunnel, Ok(())),
            (&trusted, "github.com", Way::Plain, no),
            (&trusted, "github.com:8443", Way::Tunnel, no),
            (&trusted, "evil.github.com", Way::Tunnel, no),
            (&trusted, "github.com.evil.org", Way::Tunnel, no),
            (&trusted, "deb.debian.org", Way::Plain, Ok(())),
            (&policy, "github.com", Way::Tunnel, no),
            (&policy, "example.com", Way::Tunnel, Ok(())),
            (&policy, "example.com", Way::Plain, Ok(())),
            (&policy, "example.com:80", Way::Tunnel, no),
            (&policy, "www.example.com", Way::Tunnel, no),
            (&policy, "a.b.sub.org:8443", Way::Tunnel, Ok(())),
            (&policy, "sub.org", Way::Tunnel, no),
            (&policy, "xsub.org", Way::Tunnel, no),
            (&policy, "bad.sub.org", Way::Tunnel, no),
            (&policy, "1.1.1.1", Way::Tunnel, Ok(())),
            (&policy, "1.1.1.2", Way::Tunnel, no),
            (&policy, "127.0.0.1", Way::Tunnel, Err(EgressReason::PrivateAddress)),
            (&policy, "metadata.google.internal", Way::Plain, Err(EgressReason::Metadata)),
        ];
        for (policy, host, way, expected) in cases {
            assert_eq!(verdict(policy, &open, host, way), expected, "{host} {way:?}");
        }
        let floor = EgressFloor { deny: rules(&["example.com"]), ..EgressFloor::default() };
        assert_eq!(
            verdict(&policy, &floor, "example.com", Way::Plain),
            Err(EgressReason::OperatorDenied)
        );
        let host = Host::parse("example.com").unwrap();
        let rule = |port| suggestion(EgressReason::NotAllowed, &host, port, Way::Tunnel);
        assert_eq!(
            (rule(443).as_deref(), rule(22).as_deref()),
            (Some("example.com"), Some("example.com:22"))
        );
        assert_eq!(suggestion(EgressReason::Metadata, &host, 443, Way::Tunnel), None);
    }

    #[test]
    fn rules_are_read_and_written() {
        for text in [
            "example.com",
            "*.example.com:443,8443",
            "1.1.1.1:53",
            "[2606:4700::1]",
            "[2606:4700::1]:22",
        ] {
            assert_eq!(text.parse::<EgressRule>().unwrap().to_string(), text);
        }
        assert_eq!(
            "bücher.example".parse::<EgressRule>().unwrap().to_string(),
            "xn--bcher-kva.example"
        );
        for bad in [
            "",
            "*",
            "*.",
            "*.1.1.1.1",
            "a.*.b",
            "a:",
            "a:0",
            "a:1,",
            "http://a",
            "a/b",
            "0x7f.1",
            "a b",
            "*a.com",
        ] {
            assert!(bad.parse::<EgressRule>().is_err(), "{bad}");
        }
        let json = r#"{"level":"custom","allow":["example.com"],"trusted":true}"#;
        let policy: EgressPolicy = serde_json::from_str(json).unwrap();
        assert!(policy.trusted && policy.check().is_ok());
        assert!(
            TRUSTED
                .hosts
                .iter()
                .all(|host| Host::parse(host).is_some_and(|it| it.to_string() == *host))
        );
        assert!(TRUSTED.plain_http.is_subset(&TRUSTED.hosts));
    }

    fn some_rules() -> impl Strategy<Value = Vec<EgressRule>> {
        let rule = "(\\*\\.)?(a|b)(\\.c|\\.d)?(:1|:443|:80,443)?";
        proptest::collection::vec(rule.prop_map(|text| text.parse().unwrap()), 0..5)
    }

    proptest! {
        #[test]
        fn what_is_open_is_within_the_floor(
            level in proptest::sample::select(vec![EgressLevel::None, EgressLevel::Trusted, EgressLevel::Custom]),
            (allow, deny, floor_deny) in (some_rules(), some_rules(), some_rules()),
            floor_allow in proptest::option::of(some_rules()),
            host in "(a|b|x\\.a|github\\.com)(\\.c|\\.d)?",
            port in proptest::sample::select(vec![1_u16, 80, 443]),
            plain in any::<bool>(),
            trusted in any::<bool>(),
        ) {
            let policy = EgressPolicy { level, allow, deny, trusted };
            let floor = EgressFloor { allow: floor_allow, deny: floor_deny, private: Vec::new() };
            let host = Host::parse(&host).unwrap();
            let way = if plain { Way::Plain } else { Way::Tunnel };
            let open = decide(&policy, &floor, (&host, port), way).is_ok();
            let alone = decide(&policy, &EgressFloor::default(), (&host, port), way).is_ok();
            prop_assert_eq!(open, alone && floor.allows(&host, port, way));
            prop_assert!(!open || !floor.deny.iter().chain(&policy.deny).any(|rule| rule.denies(&host, port)));
            prop_assert!(!open || level != EgressLevel::None);
        }
    }
}
