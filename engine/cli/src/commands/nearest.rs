//! A name that an engine does not know, and the one that was probably meant.

use std::{collections::BTreeSet, future::Future, time::Duration};

use levada_client::{Client, Error};
use levada_protocol::error::ErrorCode;
use levada_server::nearest;
use levada_terminal::connect_to;
use tokio::time::timeout;

use crate::{
    args::{
        ClientArgs, Command, PluginAction, RouteAction, SubscriptionAction, SubscriptionPath, TopicAction,
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
        let mut names = Self::default();
        match command {
            Command::Topic(args) => {
                names.client = Some(args.client.clone());
                match &args.action {
                    TopicAction::Describe { topic }
                    | TopicAction::Set { topic, .. }
                    | TopicAction::Delete { topic, .. } => names.topics.push(topic.to_string()),
                    TopicAction::Create { .. } | TopicAction::List => {}
                }
            }
            Command::Publish(args) => {
                names.client = Some(args.client.clone());
                names.topics.push(args.topic.to_string());
            }
            Command::Read(args) => {
                names.client = Some(args.client.clone());
                names.topics.push(args.topic.to_string());
            }
            Command::Subscribe(args) => {
                names.client = Some(args.client.clone());
                names.topics.push(args.subscription.topic.to_string());
                names.plugins = args.options.plugins();
            }
            Command::Subscription(args) => {
                names.client = Some(args.client.clone());
                match &args.action {
                    SubscriptionAction::Create { subscription, options, .. } => {
                        names.topics.push(subscription.topic.to_string());
                        names.plugins = options.plugins();
                    }
                    SubscriptionAction::List { topic } => {
                        names.topics.extend(topic.as_ref().map(ToString::to_string));
                    }
                    SubscriptionAction::Set { subscription, options, .. } => {
                        names.has_subscription(subscription);
                        names.plugins = options.plugins();
                    }
                    SubscriptionAction::Describe { subscription }
                    | SubscriptionAction::Delete { subscription, .. }
                    | SubscriptionAction::Seek { subscription, .. }
                    | SubscriptionAction::Pause { subscription }
                    | SubscriptionAction::Resume { subscription } => names.has_subscription(subscription),
                }
            }
            Command::Plugin(args) => {
                names.client = Some(args.client.clone());
                if let PluginAction::Remove { plugin: (name, _) } = &args.action {
                    names.plugins.push(name.to_string());
                }
            }
            Command::Route(args) => {
                names.client = Some(args.client.clone());
                match &args.action {
                    RouteAction::Create { from, to, chain, .. } => {
                        names.topics.push(from.to_string());
                        names.topics.extend(to.iter().map(ToString::to_string));
                        names.plugins = chain.plugins();
                    }
                    RouteAction::List => {}
                    RouteAction::Describe { route }
                    | RouteAction::Delete { route, .. }
                    | RouteAction::Resume { route } => names.route = Some(route.to_string()),
                }
            }
            Command::Serve(_) | Command::Demo(_) | Command::Bench(_) | Command::Completion { .. } => {}
        }
        names
    }

    /// The same failure; if it is about a name that the engine does not know, with the one that was probably meant.
    pub(super) async fn explain(self, error: anyhow::Error) -> anyhow::Error {
        let code = failure::code(&error);
        let Some(args) = &self.client else { return error };
        let meant = async {
            let client = connect_to(&args.addr, args.ca.as_deref(), None).await.ok()?;
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
