use bytes::BytesMut;
use levada_plugin_host::*;
use levada_protocol::{batch::*, deliver::Run, event::Event, ids::*};
use std::time::{Duration, Instant};
fn cpu() -> f64 { let s = std::fs::read_to_string("/proc/self/schedstat").unwrap(); let _ = s; let mut t = 0.0; for e in std::fs::read_dir("/proc/self/task").unwrap() { if let Ok(s) = std::fs::read_to_string(e.unwrap().path().join("schedstat")) { t += s.split_whitespace().next().unwrap().parse::<f64>().unwrap(); } } t }
fn rss() -> u64 {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    s.lines().find(|l| l.starts_with("VmRSS")).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}
fn input(json: bool) -> CallInput {
    let mut b = BatchBuilder::new();
    for i in 0..512 {
        let p = if json {
            let mut s = format!(
                r#"{{"id":"order-{i:06}","status":"paid","amount":{},"region":"eu","ship_to":{{"zip":"9000"}},"note":""#,
                i + 100
            );
            while s.len() < 98 {
                s.push('x');
            }
            s.push_str("\"}");
            s
        } else {
            "x".repeat(100)
        };
        assert_eq!(p.len(), 100, "{p}");
        b.push(&Event::new(p).at(Timestamp(1_000_000 + i))).unwrap();
    }
    let run = Run {
        base: Offset(0),
        append_time: Timestamp(5),
        hops: 0,
        batches: b.finish(Stamp::ENGINE).bytes().clone(),
    };
    let mut o = BytesMut::new();
    run.write(&mut o);
    CallInput { runs: o.freeze(), events: 512, now: Timestamp(5), seed: 0 }
}
fn main() {
    let dir = std::env::temp_dir().join("lvbench");
    println!("rss before {} KiB", rss());
    let host = Host::new(HostConfig::new(&dir)).unwrap();
    println!("rss host {} KiB", rss());
    let t = std::env::args().nth(1).unwrap();
    let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (name, config, json) in [
        ("sample", r#"{"pass":0.1}"#, false),
        ("sample", r#"{"pass":0.1}"#, true),
        ("json_filter", r#"{"where":"amount > 300 && status == \"paid\""}"#, true),
        ("json_filter", r#"{"where":"header.x == \"a\""}"#, true),
        ("sample", r#"{"transform":"upper"}"#, false),
        ("sample", r#"{"transform":"reverse"}"#, false),
        ("json_project", r#"{"keep":["id","amount","ship_to.zip"]}"#, true),
        ("content_router", r#"{"field":"status","routes":{"paid":"x"}}"#, true),
    ] {
        let bytes = std::fs::read(format!("{t}/levada_{name}.component.wasm")).unwrap();
        let s = Instant::now();
        host.inspect(&bytes).unwrap();
        let compile = s.elapsed();
        let s = Instant::now();
        let a = host
            .attach(
                Artefact::Bytes(&bytes),
                AttachSpec {
                    plugin: name.into(),
                    version: 1,
                    config: config.into(),
                    topic: "t".into(),
                    place: Place::Subscription,
                    deadline: Duration::from_millis(100),
                    memory_bytes_max: 32 << 20,
                },
            )
            .unwrap();
        let attach = s.elapsed();
        let input = input(json);
        let mut best = f64::MAX;
        let mut best1 = f64::MAX;
        let mut wall = f64::MAX; let mut best2 = f64::MAX;
        for _ in 0..5 {
            rt.block_on(async {
                let f0 = a.figures(); let c0 = cpu();
                let n = 2000;
                let s = Instant::now();
                let mut q = std::collections::VecDeque::new();
                for _ in 0..n {
                    if q.len() == 8 {
                        let f: CallFuture = q.pop_front().unwrap();
                        f.await.unwrap();
                    }
                    q.push_back(a.call(input.clone()));
                }
                for f in q {
                    f.await.unwrap();
                }
                wall = wall.min(s.elapsed().as_nanos() as f64 / (n * 512) as f64);
                let f1 = a.figures(); best2 = best2.min((cpu() - c0) / (n * 512) as f64);
                best = best.min((f1.busy - f0.busy).as_nanos() as f64 / (n * 512) as f64);
                let s = Instant::now();
                for _ in 0..500 {
                    a.call(input.clone()).await.unwrap();
                }
                best1 = best1.min(s.elapsed().as_nanos() as f64 / (500 * 512) as f64);
            });
        }
        println!(
            "{name:15} {config:50} cpu {best2:6.1} busy {best:6.1} ns/event, wall 8 in flight {wall:6.1}, 1 in flight {best1:6.1}; compile {compile:?} attach {attach:?} mem {} rss {} KiB",
            a.figures().memory_bytes_high,
            rss()
        );
    }
}
