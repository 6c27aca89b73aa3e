//! Permissions: one verb and one pattern each, such as `publish orders.*`. They allow; nothing denies, so that what a
//! principal may do is the sum of its lines.
//!
//! | resource | pattern | matches |
//! | --- | --- | --- |
//! | topic | `orders`, `shop.*`, `shop.**` | topics; and their subscriptions, where the verb has those |
//! | subscription | `orders/payment`, `shop.*/*` | subscriptions of matching topics |
//! | route | `route:copy-*` | routes |
//! | producer group | `group:shop-*` | producer groups with their transactions |
//! | plugin | `plugin:json-*`; behind `deploy`, which has no other, `json-*` | plugins, in all versions |
//! | everything | `**` | every resource of the verb |
//!
//! Behind the pattern of `read` may be a mask: `read orders via json-project:{"drop":["card"]}` allows reading what the plugins
//! leave of each event; see [`Mask`].
//!
//! Behind `role` there is no pattern but the name of a principal: whoever has the line may do what that principal's own lines allow. The
//! idea is that of roles in PostgreSQL, where users and roles are one kind of thing.
//!
//! `*` stands for any characters within one segment, none among them; segments of topic names end at dots. `**` is the last
//! segment, and stands for one or more. The idea of segments and of a tail is that of NATS subjects. A topic whose name begins with
//! `_` is the engine's own, and is matched by patterns that begin with `_` alone, such as `read _audit`.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    access::{Action, Scope},
    error::ErrorCode,
    ids::{PrincipalName, TopicName},
    limits::PERMISSION_BYTES_MAX,
    mask::Mask,
};

/// A verb, and what it may be applied to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Permission(Line);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Line {
    Allow(Action, Pattern),
    /// Reading, through plugins.
    ReadVia(Pattern, Mask),
    /// What another principal's own lines allow.
    Role(PrincipalName),
}

/// The verb of lines that name another principal.
const ROLE: &str = "role";

/// Why a text is no permission. Its code is `INVALID_ARGUMENT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{got:?} is no permission: {expected}")]
pub struct InvalidPermission {
    /// The first 200 characters of the text.
    pub got: String,
    /// What was expected, in words.
    pub expected: String,
}

/// What a permission's verb may be applied to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Pattern {
    /// `admin` has none.
    None,
    /// `**`
    Everything,
    Topic(Glob),
    Subscription(Glob, Glob),
    Route(Glob),
    Group(Glob),
    Plugin(Glob),
}

/// Segments with `*` and a tail `**`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Glob(Arc<str>);

/// The kinds of resources of a verb.
struct Kinds {
    topic: bool,
    subscription: bool,
    route: bool,
    group: bool,
    plugin: bool,
}

impl Permission {
    /// The permission to do everything, principals and tokens among it.
    pub fn admin() -> Self {
        Self(Line::Allow(Action::Admin, Pattern::None))
    }

    /// The verb; `None` of a role.
    pub fn action(&self) -> Option<Action> {
        match &self.0 {
            Line::Allow(action, _) => Some(*action),
            Line::ReadVia(..) => Some(Action::Read),
            Line::Role(_) => None,
        }
    }

    /// The principal whose lines count as well.
    pub fn role(&self) -> Option<&PrincipalName> {
        match &self.0 {
            Line::Allow(..) | Line::ReadVia(..) => None,
            Line::Role(name) => Some(name),
        }
    }

    /// What events pass before this line lets them be read; `None` of a line that shows them as they are stored, or is not about
    /// reading.
    pub fn mask(&self) -> Option<&Mask> {
        match &self.0 {
            Line::ReadVia(_, mask) => Some(mask),
            Line::Allow(..) | Line::Role(_) => None,
        }
    }

    /// True if this line alone allows the action: its verb is the same, or `admin`, and its pattern matches. A role's line allows
    /// nothing alone.
    pub fn allows(&self, action: Action, scope: &Scope) -> bool {
        match &self.0 {
            Line::Allow(Action::Admin, _) => true,
            Line::Allow(of, pattern) => {
                let is_of = *of == action || (*of == Action::Read && action == Action::ReadUnmasked);
                is_of && pattern.matches(scope)
            }
            Line::ReadVia(pattern, _) => action == Action::Read && pattern.matches(scope),
            Line::Role(_) => false,
        }
    }

    /// True if the line is about this resource, whatever its verb is, or about something that belongs to it: who may subscribe to
    /// `orders/payment` knows that there is a topic `orders`, and who may publish to `orders` knows of no subscription.
    pub fn concerns(&self, scope: &Scope) -> bool {
        let (action, pattern) = match &self.0 {
            Line::Allow(action, pattern) => (*action, pattern),
            Line::ReadVia(pattern, _) => (Action::Read, pattern),
            Line::Role(_) => return false,
        };
        let belongs = match (pattern, scope) {
            (Pattern::Subscription(topic, _), Scope::Topic(name)) => topic.is_of(name),
            _ => false,
        };
        let has_kind = Kinds::of(action).has(scope);
        action == Action::Admin || (has_kind && pattern.matches(scope)) || belongs
    }
}

impl Pattern {
    fn matches(&self, scope: &Scope) -> bool {
        match (self, scope) {
            (Self::Everything, Scope::Topic(topic) | Scope::Subscription(topic, _)) => !is_hidden(topic),
            (Self::Everything, _) => true,
            (Self::Topic(glob), Scope::Topic(topic) | Scope::Subscription(topic, _)) => glob.is_of(topic),
            (Self::Subscription(of, glob), Scope::Subscription(topic, name)) => {
                of.is_of(topic) && glob.matches(name.as_str())
            }
            (Self::Route(glob), Scope::Route(name)) => glob.matches(name.as_str()),
            (Self::Group(glob), Scope::Group(name)) => glob.matches(name.as_str()),
            (Self::Plugin(glob), Scope::Plugin(name)) => glob.matches(name.as_str()),
            _ => false,
        }
    }

    fn parse(action: Action, text: &str) -> Result<Self, String> {
        let kinds = Kinds::of(action);
        let expected = || format!("expected {}", kinds.in_words(action));
        if text == "**" {
            return Ok(Self::Everything);
        }
        if let Some((kind, rest)) = text.split_once(':') {
            let glob = Glob::parse(rest);
            let pattern = match kind {
                "route" if kinds.route => glob.map(Self::Route),
                "group" if kinds.group => glob.map(Self::Group),
                "plugin" if kinds.plugin => glob.map(Self::Plugin),
                _ => None,
            };
            return pattern.ok_or_else(expected);
        }
        if action == Action::Deploy {
            return Glob::parse(text).map(Self::Plugin).ok_or_else(expected);
        }
        let pattern = match text.split_once('/') {
            Some((topic, name)) if kinds.subscription => {
                Glob::parse(topic).zip(Glob::parse(name)).map(|(topic, name)| Self::Subscription(topic, name))
            }
            None if kinds.topic => Glob::parse(text).map(Self::Topic),
            _ => None,
        };
        pattern.ok_or_else(expected)
    }
}

impl Glob {
    fn parse(text: &str) -> Option<Self> {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-*".contains(&byte);
        let segments = || text.split('.');
        let is_sound = !text.is_empty() && text.bytes().all(allowed) && segments().all(|one| !one.is_empty());
        // A tail is a whole segment, and the last.
        let tails = segments().filter(|one| one.contains("**")).count();
        let is_tailed = tails == 0 || (tails == 1 && segments().next_back() == Some("**"));
        (is_sound && is_tailed).then(|| Self(text.into()))
    }

    /// True if it is a pattern of this topic.
    fn is_of(&self, topic: &TopicName) -> bool {
        (!is_hidden(topic) || self.0.starts_with('_')) && self.matches(topic.as_str())
    }

    fn matches(&self, name: &str) -> bool {
        let (mut pattern, mut rest) = (self.0.split('.'), name.split('.'));
        loop {
            match (pattern.next(), rest.next()) {
                (None, None) => return true,
                (Some("**"), Some(_)) => return true,
                (Some(glob), Some(segment)) if segment_matches(glob, segment) => {}
                _ => return false,
            }
        }
    }
}

/// The first word, if there is one, and what is behind it.
fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_ascii();
    text.split_once(|next: char| next.is_ascii_whitespace())
        .map_or((text, ""), |(word, rest)| (word, rest.trim_ascii_start()))
}

/// True for the engine's own topics, which no pattern matches by a star at its beginning: who may read all topics of a shop need
/// not read who administrates it.
fn is_hidden(topic: &TopicName) -> bool {
    topic.as_str().starts_with('_')
}

/// True if the segment is the glob, with any characters for each `*`. Greedy from the left: what stands between two stars is
/// looked for as early as possible, which is always right.
fn segment_matches(glob: &str, segment: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else { return glob == segment };
    let Some(mut left) = segment.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').map_or((None, rest), |(middle, last)| (Some(middle), last));
    for part in middle.into_iter().flat_map(|middle| middle.split('*')) {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(last)
}

impl Kinds {
    fn of(action: Action) -> Self {
        let none = Self { topic: false, subscription: false, route: false, group: false, plugin: false };
        match action {
            Action::Publish => Self { topic: true, group: true, ..none },
            Action::Subscribe => Self { topic: true, subscription: true, ..none },
            Action::Read | Action::ReadUnmasked => Self { topic: true, ..none },
            Action::Browse => {
                Self { topic: true, subscription: true, route: true, group: true, plugin: true }
            }
            Action::Manage | Action::Redrive => Self { topic: true, subscription: true, route: true, ..none },
            Action::Deploy => Self { plugin: true, ..none },
            Action::Admin => none,
        }
    }

    fn has(&self, scope: &Scope) -> bool {
        match scope {
            Scope::Engine => false,
            Scope::Topic(_) => self.topic,
            Scope::Subscription(..) => self.subscription,
            Scope::Route(_) => self.route,
            Scope::Group(_) => self.group,
            Scope::Plugin(_) => self.plugin,
        }
    }

    fn in_words(&self, action: Action) -> String {
        let forms = [
            (self.topic, "a topic such as shop.orders or shop.*"),
            (self.subscription, "a subscription such as orders/payment"),
            (self.route, "a route such as route:copy-*"),
            (self.group, "a producer group such as group:shop"),
            (self.plugin, "a plugin such as plugin:json-*"),
            (true, "** for all"),
        ];
        let forms: Vec<&str> = forms.iter().filter(|(has, _)| *has).map(|(_, words)| *words).collect();
        let (last, others) = forms.split_last().expect("** is always there");
        format!("behind {action} {} or {last}", others.join(", "))
    }
}

impl FromStr for Permission {
    type Err = InvalidPermission;

    fn from_str(text: &str) -> Result<Self, InvalidPermission> {
        let invalid =
            |expected: String| InvalidPermission { got: text.chars().take(200).collect(), expected };
        if text.len() > PERMISSION_BYTES_MAX {
            return Err(invalid(format!(
                "expected at most {PERMISSION_BYTES_MAX} bytes, got {}",
                text.len()
            )));
        }
        let (verb, text) = first_word(text);
        let (pattern, rest) = first_word(text);
        let pattern = (!pattern.is_empty()).then_some(pattern);
        if verb == ROLE {
            let name = pattern.filter(|_| rest.is_empty()).and_then(|name| name.parse().ok());
            let expected = || "expected behind role the name of one principal".to_owned();
            return name.map(|name| Self(Line::Role(name))).ok_or_else(|| invalid(expected()));
        }
        let action = Action::VERBS.into_iter().find(|action| action.as_str() == verb).ok_or_else(|| {
            let verbs = Action::VERBS.map(Action::as_str).join(", ");
            invalid(format!(
                "expected one of {verbs}, {ROLE}, and a pattern behind it, such as publish shop.*"
            ))
        })?;
        let pattern = match (action, pattern) {
            (Action::Admin, None) => Pattern::None,
            (Action::Admin, Some(_)) => return Err(invalid("expected nothing behind admin".to_owned())),
            (_, None) => return Err(invalid(format!("expected {}", Kinds::of(action).in_words(action)))),
            (_, Some(pattern)) => Pattern::parse(action, pattern).map_err(invalid)?,
        };
        if rest.is_empty() {
            return Ok(Self(Line::Allow(action, pattern)));
        }
        if action != Action::Read {
            return Err(invalid("expected one verb and one pattern".to_owned()));
        }
        let mask = rest
            .parse()
            .map_err(|error| invalid(format!("expected one verb and one pattern, or a mask: {error}")))?;
        Ok(Self(Line::ReadVia(pattern, mask)))
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (action, pattern) = match &self.0 {
            Line::Allow(action, pattern) => (*action, pattern),
            Line::ReadVia(pattern, mask) => {
                return write!(f, "{} {mask}", Self(Line::Allow(Action::Read, pattern.clone())));
            }
            Line::Role(name) => return write!(f, "{ROLE} {name}"),
        };
        match pattern {
            Pattern::None => write!(f, "{action}"),
            Pattern::Everything => write!(f, "{action} **"),
            Pattern::Topic(Glob(glob)) => write!(f, "{action} {glob}"),
            Pattern::Subscription(Glob(topic), Glob(name)) => write!(f, "{action} {topic}/{name}"),
            Pattern::Route(Glob(glob)) => write!(f, "{action} route:{glob}"),
            Pattern::Group(Glob(glob)) => write!(f, "{action} group:{glob}"),
            Pattern::Plugin(Glob(glob)) if action == Action::Deploy => write!(f, "{action} {glob}"),
            Pattern::Plugin(Glob(glob)) => write!(f, "{action} plugin:{glob}"),
        }
    }
}

impl Serialize for Permission {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Permission {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|error| de::Error::custom(format_args!("{}: {error}", ErrorCode::InvalidArgument)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permission(text: &str) -> Permission {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn topic(name: &str) -> Scope {
        Scope::Topic(name.parse().unwrap())
    }

    fn subscription(topic: &str, name: &str) -> Scope {
        Scope::Subscription(topic.parse().unwrap(), name.parse().unwrap())
    }

    #[test]
    fn a_pattern_matches_what_it_says_and_nothing_else() {
        for (pattern, name, matches) in [
            ("orders", "orders", true),
            ("orders", "orders.eu", false),
            ("orders", "order", false),
            ("*", "orders", true),
            ("*", "orders.eu", false),
            ("shop.*", "shop.orders", true),
            ("shop.*", "shop", false),
            ("shop.*", "shop.orders.eu", false),
            ("shop.**", "shop.orders.eu", true),
            ("shop.**", "shop.orders", true),
            ("shop.**", "shop", false),
            ("shop.**", "shopping.orders", false),
            ("*.orders", "eu.orders", true),
            ("*.orders", "eu.v2.orders", false),
            ("or*rs", "orders", true),
            ("or*rs", "ors", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*a*", "bab", true),
            ("**", "shop.orders.eu", true),
            ("**", "_audit", false),
            ("*", "_audit", false),
            ("*audit", "_audit", false),
            ("_audit", "_audit", true),
            ("_*", "_audit", true),
        ] {
            let read = permission(&format!("read {pattern}"));
            assert_eq!(read.allows(Action::Read, &topic(name)), matches, "{pattern} {name}");
            assert!(!read.allows(Action::Publish, &topic(name)), "{pattern} is about reading");
        }
    }

    #[test]
    fn a_topic_takes_its_subscriptions_along_and_a_subscription_shows_its_topic() {
        let (orders, payment) = (topic("orders"), subscription("orders", "payment"));
        let all = permission("subscribe orders");
        assert!(all.allows(Action::Subscribe, &payment));
        let one = permission("subscribe orders/pay*");
        assert!(one.allows(Action::Subscribe, &payment));
        assert!(!one.allows(Action::Subscribe, &subscription("orders", "stock")));
        assert!(!one.allows(Action::Subscribe, &orders) && one.concerns(&orders));
        let publish = permission("publish orders");
        assert!(publish.concerns(&orders) && !publish.concerns(&payment));
        assert!(!permission("deploy **").concerns(&orders));
        assert!(!one.concerns(&topic("others")) && !one.concerns(&subscription("orders", "stock")));
    }

    #[test]
    fn other_resources_are_named_by_their_kind() {
        let (route, group) = (Scope::Route("copy-a".parse().unwrap()), Scope::Group("shop".parse().unwrap()));
        let plugin = Scope::Plugin("json-filter".parse().unwrap());
        assert!(permission("manage route:copy-*").allows(Action::Manage, &route));
        assert!(!permission("manage copy-*").allows(Action::Manage, &route));
        assert!(permission("publish group:shop").allows(Action::Publish, &group));
        assert!(!permission("publish shop").allows(Action::Publish, &group));
        assert_eq!(permission("deploy plugin:json-*"), permission("deploy json-*"));
        assert!(permission("deploy json-*").allows(Action::Deploy, &plugin));
        for everything in [Permission::admin(), permission("manage **")] {
            assert!(everything.allows(Action::Manage, &route), "{everything}");
        }
        assert!(Permission::admin().allows(Action::Admin, &Scope::Engine));
        assert!(!permission("manage **").allows(Action::Admin, &Scope::Engine));
    }

    #[test]
    fn what_is_no_permission_says_what_was_expected() {
        for (text, expected) in [
            ("", "expected one of publish, subscribe"),
            ("write orders", "expected one of publish, subscribe"),
            ("publish", "behind publish a topic"),
            ("publish orders/payment", "behind publish a topic"),
            ("publish route:a", "a producer group such as group:shop"),
            ("read Orders", "behind read a topic"),
            ("read a..b", "behind read a topic"),
            ("read **.a", "behind read a topic"),
            ("read a**", "behind read a topic"),
            ("read a b", "one verb and one pattern"),
            ("admin **", "nothing behind admin"),
            ("deploy topic:a", "a plugin such as plugin:json-*"),
            ("subscribe a/b/c", "a subscription such as orders/payment"),
            ("role", "behind role the name of one principal"),
            ("role a b", "behind role the name of one principal"),
            ("role **", "behind role the name of one principal"),
        ] {
            let error = text.parse::<Permission>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        let long = format!("read {}", "a".repeat(PERMISSION_BYTES_MAX));
        assert!(long.parse::<Permission>().unwrap_err().to_string().contains("at most"));
        let wrong = serde_json::from_str::<Permission>("\"read Orders\"").unwrap_err().to_string();
        assert!(wrong.starts_with("INVALID_ARGUMENT: "), "{wrong}");
    }

    #[test]
    fn a_role_names_a_principal_and_allows_nothing_alone() {
        let role = permission("role shop-team");
        assert_eq!(role.to_string(), "role shop-team");
        assert_eq!(role.role().map(ToString::to_string).as_deref(), Some("shop-team"));
        assert_eq!((role.action(), permission("read a").role()), (None, None));
        assert!(!role.allows(Action::Read, &topic("orders")) && !role.concerns(&topic("orders")));
    }

    #[test]
    fn a_line_with_plugins_allows_reading_through_them_and_nothing_else() {
        let line = permission(r#"read shop.* via json-project:{"drop": ["card", "a b"]} via other@2"#);
        let (of, other) = (topic("shop.orders"), topic("orders"));
        assert!(line.allows(Action::Read, &of) && !line.allows(Action::Read, &other));
        assert!(!line.allows(Action::ReadUnmasked, &of) && line.concerns(&of) && !line.concerns(&other));
        assert_eq!((line.action(), line.role()), (Some(Action::Read), None));
        let plugins: Vec<String> = line.mask().unwrap().stages().map(|stage| stage.plugin).collect();
        assert_eq!(plugins, ["json-project", "other@2"]);
        let plain = permission("read shop.*");
        assert!(plain.allows(Action::ReadUnmasked, &of) && plain.mask().is_none());
        assert!(Permission::admin().allows(Action::ReadUnmasked, &of));
        for (text, expected) in [
            ("read shop.* json-project", "or a mask: expected via"),
            ("read shop.* via", "or a mask: expected via"),
            ("publish shop.* via json-project", "one verb and one pattern"),
            ("admin via json-project", "nothing behind admin"),
            ("role shop via json-project", "behind role the name of one principal"),
        ] {
            let error = text.parse::<Permission>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_permission_is_read_back_as_it_was_written(
            verb in prop::sample::select(Action::VERBS.to_vec()),
            pattern in "(route:|group:|plugin:)?[a-c*.]{1,8}(/[a-c*]{1,4})?",
            mask in prop::sample::select(vec!["", " via a", "  via b@2:{\"c\": [1, \"d e\"]}  via f"]),
        ) {
            if let Ok(permission) = format!("{verb} {pattern}{mask}").parse::<Permission>() {
                prop_assert_eq!(permission.to_string().parse::<Permission>().unwrap(), permission);
            }
        }

        #[test]
        fn globs_agree_with_a_slow_matcher(glob in "[ab*]{0,6}", segment in "[ab]{0,8}") {
            fn slow(glob: &[u8], segment: &[u8]) -> bool {
                match glob.split_first() {
                    None => segment.is_empty(),
                    Some((b'*', rest)) => (0..=segment.len()).any(|skip| slow(rest, &segment[skip..])),
                    Some((byte, rest)) => segment.split_first().is_some_and(|(first, left)| first == byte && slow(rest, left)),
                }
            }
            prop_assert_eq!(segment_matches(&glob, &segment), slow(glob.as_bytes(), segment.as_bytes()));
        }
    }
}
