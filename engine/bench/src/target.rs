//! The engine under test: one of our own on a fresh directory, or one that stands; a fresh topic on it, and its figures.

use anyhow::Context as _;
use levada_client::{Ca, Client, DeleteOptions, EngineInfo, Error, TopicSettings};
use levada_rig::Sandbox;
use levada_terminal::{Output, Reach, TokenVariables};

use crate::{args::BenchCommon, clock, figures::Costs, place, report::Report};

const MIB: f64 = 1024.0 * 1024.0;

/// An engine and what was made on it for one run.
#[derive(Debug)]
pub(crate) struct Target {
    own: Option<Sandbox>,
    address: Address,
    /// The bench's own connection: settings and figures.
    pub(crate) control: Client,
    /// The topic of this run.
    pub(crate) topic: String,
    /// What else is to be deleted at the end.
    extra_topics: Vec<String>,
}

/// How further connections are made, from any thread.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    reach: Reach,
    mtu: Option<u16>,
}

impl Address {
    /// A new connection.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        self.reach.connect_over(self.mtu).await
    }
}

/// Figures before a run.
#[derive(Debug)]
pub(crate) struct Before {
    info: EngineInfo,
    client_cpu: f64,
}

impl Before {
    /// The engine's resident memory then, in bytes.
    pub(crate) fn rss_bytes(&self) -> u64 {
        self.info.rss_bytes
    }
}

impl Target {
    /// Starts or finds the engine and makes the run's topic.
    pub(crate) async fn prepare(output: &Output, common: &BenchCommon) -> anyhow::Result<Self> {
        let mtu = common.path.mtu;
        let (own, address) = match &common.addr {
            Some(addr) => {
                let token = TokenVariables::of_process().or_flag(common.token_file.as_deref())?;
                let ca = common.ca.clone().map(Ca::File);
                (None, Address { reach: Reach { addr: addr.clone(), ca, token, certificate: None }, mtu })
            }
            None => {
                let sandbox =
                    Sandbox::start("levada-bench-", &place::checked(output, common.dir.as_deref()), None)
                        .await?;
                let (addr, ca) = (sandbox.engine().addr().to_owned(), sandbox.engine().ca().to_owned());
                let reach = Reach { addr, ca: Some(Ca::File(ca)), token: None, certificate: None };
                (Some(sandbox), Address { reach, mtu })
            }
        };
        let topic = format!("bench-{:08x}", getrandom::u32().context("drawing a topic's name")?);
        let control = address.connect().await?;
        if let Err(error) = control.create_topic(&topic, settings(common)).await {
            control.close().await;
            return Err(error.into());
        }
        Ok(Self { own, address, control, topic, extra_topics: Vec::new() })
    }

    /// Makes a further topic with the same settings.
    pub(crate) async fn another_topic(&mut self, common: &BenchCommon) -> anyhow::Result<String> {
        let name = format!("{}-out", self.topic);
        self.control.create_topic(&name, settings(common)).await?;
        self.extra_topics.push(name.clone());
        Ok(name)
    }

    /// How to reach it.
    pub(crate) fn address(&self) -> Address {
        self.address.clone()
    }

    /// Figures before what is measured.
    pub(crate) async fn before(&self) -> anyhow::Result<Before> {
        Ok(Before { info: self.control.info().await?, client_cpu: clock::cpu_seconds() })
    }

    /// Enters the figures since `before` into the report.
    pub(crate) async fn enter_figures(&self, before: &Before, report: &mut Report) -> anyhow::Result<()> {
        let client_cpu_seconds = clock::cpu_seconds() - before.client_cpu;
        let after = self.control.info().await?;
        #[expect(clippy::cast_precision_loss, reason = "memory fits 53 bits")]
        let peak = after.peak_rss_bytes as f64 / MIB;
        let costs = Costs {
            engine_cpu_seconds: after.cpu_seconds - before.info.cpu_seconds,
            client_cpu_seconds,
            engine_peak_rss_mib: peak,
            compaction_bytes: after.compaction_bytes.saturating_sub(before.info.compaction_bytes),
            flush_bytes: after.flush_bytes.saturating_sub(before.info.flush_bytes),
            stall_seconds: after.stall_seconds - before.info.stall_seconds,
            syncs: after.syncs.saturating_sub(before.info.syncs),
            sync_p99_us: after.sync_p99_us,
        };
        report.costs(costs, after.mtu, after.version);
        Ok(())
    }

    /// Leaves nothing behind: the engine and its directory, or the topics on somebody else's.
    pub(crate) async fn finish(self) -> anyhow::Result<()> {
        match self.own {
            Some(sandbox) => {
                self.control.close().await;
                sandbox.stop().await
            }
            None => {
                let deleted =
                    delete_topics(&self.control, self.extra_topics.iter().chain([&self.topic])).await;
                self.control.close().await;
                Ok(deleted?)
            }
        }
    }

    /// As [`Target::finish`], after a failure: an engine of our own is not waited for.
    pub(crate) async fn abandon(self) -> anyhow::Result<()> {
        match &self.own {
            Some(_) => Ok(()),
            None => self.finish().await,
        }
    }
}

async fn delete_topics(control: &Client, topics: impl Iterator<Item = &String>) -> Result<(), Error> {
    for topic in topics {
        control.delete_topic(topic, DeleteOptions::forced()).await?;
    }
    Ok(())
}

fn settings(common: &BenchCommon) -> TopicSettings {
    TopicSettings {
        partitions: common.partitions,
        durability: common.durability.into(),
        ..TopicSettings::default()
    }
}
