//! A name that an engine does not know, and the one that was probably meant.

use std::{collections::BTreeSet, future::Future, time::Duration};

use levada_client::{Client, Error};
use levada_protocol::{error::ErrorCode, ids::TopicName};
use levada_server::nearest;
use tokio::time::timeout;

use crate::{
    args::{
        ClientArgs, Command, DlqAction, PluginAction, RouteAction, SubscriptionAction, SubscriptionPath,
        TopicAction, Whose,
    },
    failure,
};

/// How long finding the name that was meant may take; the failure is printed without it then.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(2);

/// The names in a command that an engine must know.
#[derive(Debug, Default)]
pub(super) struct Names {
    client: Option<ClientArgs>,
    topics: Vec<String>,
    /// The topic and the name.
    subscription: Option<(String, String)>,
    route: Option<String>,
    plugins: Vec<String>,
}

impl Names {
    /// The command is about a subscription that should exist.
    fn has_subscription(&mut self, path: &SubscriptionPath) {
        let (topic, name) = (path.topic.to_string(), path.name.to_string());
        self.topics.push(topic.clone());
        self.subscription = Some((topic, name));
    }

    pub(super) fn of(command: &Command) -> Self {
        let with = |client: &ClientArgs| Self { client: Some(client.clone()), ..Self::default() };
        let of_topic =
            |client: &ClientArgs, topic: &TopicName| Self { topics: vec![topic.to_string()], ..with(client) };
        match command {
            Command::Topic(args) => match &args.action {
                TopicAction::Describe { topic }
                | TopicAction::Set { topic, .. }
                | TopicAction::Purge { topic, .. }
                | TopicAction::Delete { topic, .. } => of_topic(&args.client, topic),
                TopicAction::Create { .. } | TopicAction::List => with(&args.client),
            },
            Command::Publish(args) => of_topic(&args.client, &args.topic),
            Command::Schedule(args) => of_topic(&args.client, args.action.topic()),
            Command::Read(args) => of_topic(&args.client, &args.topic),
            Command::Subscribe(args) => {
                let of_topics = [Some(&args.subscription.topic), args.publish_to.as_ref()];
                let topics = of_topics.into_iter().flatten().map(ToString::to_string).collect();
                Self { topics, plugins: args.options.plugins(), ..with(&args.client) }
            }
            Command::Subscription(args) => with(&args.client).of_subscription(&args.action),
            Command::Dlq(args) => with(&args.client).of_dead_letters(&args.action),
            Command::Plugin(args) => {
                let plugins = match &args.action {
                    PluginAction::Remove { plugin: (name, _) } => vec![name.to_string()],
                    PluginAction::Deploy { .. } | PluginAction::List => Vec::new(),
                };
                Self { plugins, ..with(&args.client) }
            }
            Command::Route(args) => with(&args.client).of_route(&args.action),
            Command::Transaction(args) => with(&args.client),
            Command::Principal(args) => with(&args.client),
            Command::Token(args) => with(&args.client),
            Command::Serve(_)
            | Command::Demo(_)
            | Command::Ca(_)
            | Command::Context(_)
            | Command::Bench(_)
            | Command::Completion { .. } => Self::default(),
        }
    }

    fn of_subscription(mut self, action: &SubscriptionAction) -> Self {
        match action {
            SubscriptionAction::Create { subscription, options, .. } => {
                self.topics.push(subscription.topic.to_string());
                self.plugins = options.plugins();
            }
            SubscriptionAction::List { topic } => self.topics.extend(topic.as_ref().map(ToString::to_string)),
            SubscriptionAction::Set { subscription, options, .. } => {
                self.has_subscription(subscription);
                self.plugins = options.plugins();
            }
            SubscriptionAction::Describe { subscription }
            | SubscriptionAction::Delete { subscription, .. }
            | SubscriptionAction::Seek { subscription, .. }
            | SubscriptionAction::Pause { subscription }
            | SubscriptionAction::Resume { subscription } => self.has_subscription(subscription),
            SubscriptionAction::Push(action) => self.has_subscription(action.subscription()),
        }
        self
    }

    /// Whose dead letters they are.
    fn of_dead_letters(mut self, action: &DlqAction) -> Self {
        let of = match action {
            DlqAction::List { of: None, .. } => return self,
            DlqAction::List { of: Some(Whose::Topic(topic)), .. } => {
                self.topics.push(topic.to_string());
                return self;
            }
            DlqAction::List { of: Some(Whose::One(of)), .. } => of,
            DlqAction::Show { of, .. } | DlqAction::Purge { of, .. } | DlqAction::Redrive { of, .. } => {
                &of.of
            }
        };
        self.topics.push(of.topic().to_owned());
        match of.route() {
            Some(route) => self.route = Some(route.to_owned()),
            None => self.subscription = Some((of.topic().to_owned(), of.name().to_owned())),
        }
        if let DlqAction::Redrive { to: Some(to), .. } = action {
            self.topics.push(to.to_string());
        }
        self
    }

    fn of_route(mut self, action: &RouteAction) -> Self {
        match action {
            RouteAction::Create { from, to, chain, .. } => {
                self.topics.push(from.to_string());
                self.topics.extend(to.iter().map(ToString::to_string));
                self.plugins = chain.plugins();
            }
            RouteAction::List => {}
            RouteAction::Describe { route }
            | RouteAction::Delete { route, .. }
            | RouteAction::Resume { route } => self.route = Some(route.to_string()),
        }
        self
    }

    /// The same failure; if it is about a name that the engine does not know, with the one that was probably meant.
    pub(super) async fn explain(self, error: anyhow::Error) -> anyhow::Error {
        let code = failure::code(&error);
        let Some(args) = &self.client else { return error };
        let meant = async {
            let client = args.reach.connect(None).await.ok()?;
            let meant = self.meant(code, &client).await;
            client.close().await;
            meant
        };
        let is_about_a_name = matches!(
            code,
            Some(
                ErrorCode::TopicNotFound
                    | ErrorCode::SubscriptionNotFound
                    | ErrorCode::RouteNotFound
                    | ErrorCode::PluginNotFound
            )
        );
        if !is_about_a_name {
            return error;
        }
        match timeout(SEARCH_TIMEOUT, meant).await {
            Ok(Some(name)) => failure::with_hint(&error, &format!("the nearest name is {name}")),
            _ => error,
        }
    }

    async fn meant(&self, code: Option<ErrorCode>, client: &Client) -> Option<String> {
        match code? {
            ErrorCode::TopicNotFound => {
                among(&self.topics, client.list_topics(), |topic| topic.name.to_string()).await
            }
            ErrorCode::SubscriptionNotFound => {
                let (topic, name) = self.subscription.as_ref()?;
                let listed = client.list_subscriptions(Some(topic));
                among(std::slice::from_ref(name), listed, |found| found.name.to_string()).await
            }
            ErrorCode::RouteNotFound => {
                among(self.route.as_slice(), client.list_routes(), |route| route.spec.name.to_string()).await
            }
            ErrorCode::PluginNotFound => {
                among(&self.plugins, client.list_plugins(), |plugin| plugin.name.to_string()).await
            }
            _ => None,
        }
    }
}

/// The name nearest to the first of `typed` that is not among those listed.
async fn among<T>(
    typed: &[String],
    listed: impl Future<Output = Result<Vec<T>, Error>>,
    name: impl Fn(T) -> String,
) -> Option<String> {
    let known: BTreeSet<String> = listed.await.ok()?.into_iter().map(name).collect();
    let unknown = typed.iter().find(|name| !known.contains(*name))?;
    nearest(unknown, known.iter().map(String::as_str)).map(str::to_owned)
}
