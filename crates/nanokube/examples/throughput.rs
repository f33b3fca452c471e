//! Measures one server in one process: `throughput [WRITES] [WATCHERS]` prints writes per second, the delay until the
//! watchers have an event, and events lost. Meaningful in a release build only.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use kubevirt_runtime::clock::Clock;
use nanokube::{Nanokube, Options, UserInfo};
use tokio::time::Instant;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    #[allow(clippy::disallowed_methods, reason = "a main may read its arguments")]
    let mut args = std::env::args().skip(1);
    let writes: usize = args.next().map_or(Ok(10_000), |text| text.parse())?;
    let watchers: usize = args.next().map_or(Ok(100), |text| text.parse())?;
    let mut options = Options::new(Clock::System, 1);
    options.history = writes.max(1000);
    let server = Nanokube::new(options);
    let api: Api<ConfigMap> = Api::namespaced(server.client(UserInfo::admin()), "default");
    let from = server.revision().to_string();
    let start = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..watchers {
        let mut stream = api.watch(&WatchParams::default(), &from).await?.boxed();
        tasks.push(tokio::spawn(async move {
            let mut delays = Vec::with_capacity(writes);
            while delays.len() < writes {
                let Some(Ok(WatchEvent::Added(object))) = stream.next().await else { break };
                let sent = object.data.as_ref().and_then(|data| data["at"].parse::<u64>().ok()).unwrap_or(0);
                delays.push(start.elapsed().saturating_sub(Duration::from_micros(sent)));
            }
            delays
        }));
    }
    let writing = Instant::now();
    for index in 0..writes {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(format!("c{index}"));
        object.data = Some([("at".to_owned(), start.elapsed().as_micros().to_string())].into());
        api.create(&PostParams::default(), &object).await?;
    }
    let took = writing.elapsed();
    let mut delays = Vec::new();
    for task in tasks {
        delays.extend(task.await?);
    }
    delays.sort_unstable();
    let lost = writes * watchers - delays.len();
    let p50 = delays.get(delays.len() / 2).copied().unwrap_or_default();
    let p99 = delays.get(delays.len() * 99 / 100).copied().unwrap_or_default();
    println!(
        "{{\"writes_per_second\":{:.0},\"watchers\":{watchers},\"p50_watch_ms\":{:.1},\"p99_watch_ms\":{:.1},\"events_lost\":{lost}}}",
        usize_to_f64(writes) / took.as_secs_f64(),
        p50.as_secs_f64() * 1000.0,
        p99.as_secs_f64() * 1000.0
    );
    Ok(())
}

fn usize_to_f64(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}
