//! `levada plugin`: deploys, lists and removes plugins.

use std::{fs::File, io::Read as _, path::Path, pin::pin, time::Duration};

use bytes::Bytes;
use levada_client::Client;
use levada_json::Deployment;
use levada_protocol::{error::ErrorCode, limits::ARTEFACT_BYTES_MAX, request::PluginInfo};
use levada_terminal::{
    Failure,
    output::{self, Output, Rows},
};

use super::deleting;
use crate::{
    args::{PluginAction, PluginArgs},
    client,
};

/// How often a command that waits for the engine's compiler says so.
const WAITING_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn run(output: &Output, args: PluginArgs) -> anyhow::Result<()> {
    // An error of the file is reported even without an engine.
    let artefact = match &args.action {
        PluginAction::Deploy { file: Some(file), .. } => Some(read_artefact(file)?),
        _ => None,
    };
    client::with_interruptible(&args.client, async |client| act(output, client, &args.action, artefact).await)
        .await
}

async fn act(
    output: &Output,
    client: &Client,
    action: &PluginAction,
    artefact: Option<Bytes>,
) -> anyhow::Result<()> {
    match action {
        PluginAction::Deploy { bundled: true, .. } => {
            for (plugin, deployed) in levada_bundled::deploy_all(client).await? {
                report(output, &plugin, deployed)?;
            }
        }
        PluginAction::Deploy { name, config, .. } => {
            let (Some(name), Some(artefact)) = (name, artefact) else {
                anyhow::bail!(Failure::usage("expected a name and a file, or --bundled"));
            };
            let plugin = deploy(output, client, name.as_str(), artefact, config.clone()).await?;
            report(output, &plugin, !plugin.already_deployed)?;
            if plugin.already_deployed {
                report_newer(output, client, &plugin).await?;
            }
        }
        PluginAction::List => {
            let plugins = client.list_plugins().await?;
            output.rows(&plugins, || table(&plugins))?;
        }
        PluginAction::Remove { plugin: (name, version) } => {
            let gone = client.remove_plugin(name.as_str(), *version).await?;
            let what = version.map_or_else(|| name.to_string(), |version| format!("{name}@{version}"));
            deleting::report(output, "plugin", &what, &gone)?;
        }
    }
    Ok(())
}

/// Reads no more of the file than a plugin may have, whatever the file is.
fn read_artefact(file: &Path) -> Result<Bytes, Failure> {
    let mut artefact = Vec::new();
    let read = File::open(file)
        .and_then(|opened| opened.take(ARTEFACT_BYTES_MAX as u64 + 1).read_to_end(&mut artefact));
    match read {
        Err(error) => Err(Failure::unreadable(file, &error)),
        Ok(size) if size > ARTEFACT_BYTES_MAX => {
            let message = format!(
                "{} has more than the {ARTEFACT_BYTES_MAX} bytes that a plugin may have",
                file.display()
            );
            Err(Failure::new(ErrorCode::PluginTooLarge, message))
        }
        Ok(_) => Ok(artefact.into()),
    }
}

async fn deploy(
    output: &Output,
    client: &Client,
    name: &str,
    artefact: Bytes,
    config: Option<String>,
) -> anyhow::Result<PluginInfo> {
    let size = artefact.len() as u64;
    let deploying = client.deploy_plugin(name, artefact, config);
    let report = |waited: Duration| {
        let size = output::bytes(size);
        output.remark(&format!("the engine is compiling {name} ({size}), {} s so far", waited.as_secs()));
    };
    Ok(reporting(WAITING_EVERY, report, deploying).await?)
}

/// Waits for `work`, and reports after each `every` how long that has taken so far.
async fn reporting<T>(every: Duration, report: impl Fn(Duration), work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut waited = Duration::ZERO;
    loop {
        if let Ok(done) = tokio::time::timeout(every, &mut work).await {
            return done;
        }
        waited += every;
        report(waited);
    }
}

fn report(output: &Output, plugin: &PluginInfo, deployed: bool) -> anyhow::Result<()> {
    Ok(output.result(&Deployment { plugin, deployed }, || {
        let what = format!("{}@{} ({})", plugin.name, plugin.version, output::bytes(plugin.size));
        if deployed { format!("deployed plugin {what}") } else { format!("already deployed as {what}") }
    })?)
}

/// Says that attachments use a newer version, if there is one.
async fn report_newer(output: &Output, client: &Client, plugin: &PluginInfo) -> anyhow::Result<()> {
    let all = client.list_plugins().await?;
    let newer = all.iter().filter(|other| other.name == plugin.name && other.version > plugin.version);
    if let Some(newest) = newer.max_by_key(|other| other.version) {
        let newest = format!("{}@{}", newest.name, newest.version);
        output.remark(&format!(
            "{newest} is newer, and used where no version is named; `levada plugin remove {newest}` takes it away"
        ));
    }
    Ok(())
}

fn table(plugins: &[PluginInfo]) -> Rows {
    let headings = [
        "plugin",
        "interface",
        "size",
        "events in",
        "events/call",
        "ns/event",
        "errors",
        "deployed",
        "used by",
        "remarks",
    ];
    let mut rows = Rows::new(&headings);
    for plugin in plugins {
        #[expect(clippy::cast_precision_loss, reason = "averages for people")]
        let average = |sum: f64, count: u64, digits: usize| {
            if count > 0 { format!("{:.digits$}", sum / count as f64) } else { "-".to_owned() }
        };
        #[expect(clippy::cast_precision_loss, reason = "an average for people")]
        let events_in = plugin.events_in as f64;
        rows.push([
            format!("{}@{}", plugin.name, plugin.version),
            plugin.interface.as_str().to_owned(),
            output::bytes(plugin.size),
            output::count(plugin.events_in),
            average(events_in, plugin.calls, 1),
            average(plugin.seconds * 1e9, plugin.events_in, 0),
            output::count(plugin.errors),
            output::time_ms(plugin.deployed_ms),
            if plugin.used_by.is_empty() { "-".to_owned() } else { plugin.used_by.join(", ") },
            remarks(plugin),
        ]);
    }
    rows
}

/// The last error and memory restarts, as text.
fn remarks(plugin: &PluginInfo) -> String {
    let restarts = match plugin.memory_restarts {
        0 => None,
        count => Some(format!("its memory ran full {}, new instances went on", times(count))),
    };
    let last_error = plugin.last_error.as_ref().map(|error| format!("last error: {error}"));
    let remarks: Vec<String> = restarts.into_iter().chain(last_error).collect();
    if remarks.is_empty() { "-".to_owned() } else { remarks.join("; ") }
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{} times", output::count(count)) }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn the_time_is_reported_until_the_work_ends() {
        let reported = RefCell::new(Vec::new());
        let (done, end) = tokio::sync::oneshot::channel();
        let done = RefCell::new(Some(done));
        let report = |waited: Duration| {
            reported.borrow_mut().push(waited.as_millis());
            if reported.borrow().len() == 3 {
                // The engine answers now.
                let _sent = done.take().map(|done| done.send("deployed"));
            }
        };
        let answer = reporting(Duration::from_millis(1), report, end).await;
        assert_eq!((answer, reported.into_inner()), (Ok("deployed"), vec![1, 2, 3]));
    }

    #[test]
    fn the_table_tells_calls_from_events_and_says_what_the_last_error_was() {
        let plugin = PluginInfo {
            calls: 4,
            events_in: 10,
            seconds: 1e-6,
            errors: 2,
            last_error: Some("the plugin trapped".to_owned()),
            memory_restarts: 3,
            ..PluginInfo::new("p".parse().unwrap(), 1)
        };
        let idle = PluginInfo::new("q".parse().unwrap(), 0);
        let table = table(&[plugin, idle]).render();
        let lines: Vec<&str> = table.lines().collect();
        let words = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            words(0).contains("EVENTS IN EVENTS/CALL NS/EVENT ERRORS DEPLOYED USED BY REMARKS"),
            "{table}"
        );
        assert!(words(1).contains("10 2.5 100 2"), "{table}");
        let remarks = "its memory ran full 3 times, new instances went on; last error: the plugin trapped";
        assert!(words(1).ends_with(remarks), "{table}");
        assert!(words(2).contains("0 - - 0") && words(2).ends_with("- -"), "{table}");
    }
}
