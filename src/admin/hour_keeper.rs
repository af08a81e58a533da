//! Counts the items of each hour, and keeps them in the `state_file`.
//!
//! The thread that records the history calls it every few seconds; workers only count. The file is written each
//! minute and at the end, to a new file that then takes the place of the old one. So a crash loses the counts of a
//! minute at most, and never leaves half a file.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::{info, warn};

use super::hours::{Hours, Series};
use crate::mirror::reporting::counters::OutboundCounters;
use crate::mirror::reporting::item_counters::ItemTotals;
use crate::mirror::routing::routing_table::RoutingTable;
use crate::telemetry::counters::PerWorker;
use crate::telemetry::label::Label;

/// The file is written at every so many samples, which are five seconds apart.
const SAMPLES_PER_WRITE: u32 = 12;

pub(super) struct HourKeeper {
    state: Mutex<State>,
    file: Option<PathBuf>,
}

struct State {
    hours: Hours,
    // The keys keep the counters alive, so that later ones cannot have their addresses.
    outbounds: HashMap<PerWorker<OutboundCounters>, Counted>,
    /// How many tables did not count items, up to the last sampled one that did.
    tables_without_items: u32,
    samples: u32,
    /// Whether the last write failed.
    is_failing: bool,
}

/// What has been counted of an outbound so far.
struct Counted {
    route: String,
    outbound: String,
    totals: ItemTotals,
}

impl HourKeeper {
    /// Goes on with what is in `file`, if there is one.
    pub(super) fn new(file: Option<PathBuf>, now: SystemTime) -> HourKeeper {
        let now = seconds(now);
        let known = file.as_deref().and_then(|file| read(file, now));
        HourKeeper {
            state: Mutex::new(State {
                hours: known.unwrap_or_else(|| Hours::new(now)),
                outbounds: HashMap::new(),
                tables_without_items: 0,
                samples: 0,
                is_failing: false,
            }),
            file,
        }
    }

    /// Adds what has been counted since the last call.
    pub(super) fn sample(&self, table: &RoutingTable, now: SystemTime) {
        let mut state = self.state();
        state.sample(table, seconds(now));
        state.samples += 1;
        if state.samples.is_multiple_of(SAMPLES_PER_WRITE) {
            self.write(&mut state);
        }
    }

    /// Adds the last counts, and writes the file.
    pub(super) fn finish(&self, table: &RoutingTable, now: SystemTime) {
        let mut state = self.state();
        state.sample(table, seconds(now));
        self.write(&mut state);
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        self.state().hours.to_json()
    }

    fn write(&self, state: &mut State) {
        let Some(file) = &self.file else {
            return;
        };
        let written = replace(file, &state.hours.to_json());
        match &written {
            Err(error) if !state.is_failing => {
                warn!(file = %file.display(), %error, "state_file cannot be written");
            }
            Ok(()) if state.is_failing => {
                info!(file = %file.display(), "state_file is written again");
            }
            _ => {}
        }
        state.is_failing = written.is_err();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    // The keys are compared by their addresses, which counting does not change.
    #[allow(clippy::mutable_key_type)]
    fn sample(&mut self, table: &RoutingTable, now: u64) {
        // The counts of tables are compared, because between two samples items may have been off and be on again.
        if table.tables_without_items != self.tables_without_items {
            self.hours.note_gap(now);
            if table.item_metrics {
                self.tables_without_items = table.tables_without_items;
            }
        }
        let mut before = std::mem::take(&mut self.outbounds);
        for route in table.routes.all() {
            for outbound in &route.outbounds {
                let counted = Counted {
                    route: route.name.clone(),
                    outbound: outbound.name.clone(),
                    totals: totals(&outbound.counters),
                };
                let earlier = before.remove(&outbound.counters);
                self.add(&counted, earlier.as_ref(), now);
                self.outbounds.insert(outbound.counters.clone(), counted);
            }
        }
        // What a reload has removed may have counted since, too. What it finishes later is not seen.
        for (counters, earlier) in before {
            let last = Counted {
                totals: totals(&counters),
                route: earlier.route.clone(),
                outbound: earlier.outbound.clone(),
            };
            self.add(&last, Some(&earlier), now);
        }
    }

    fn add(&mut self, counted: &Counted, earlier: Option<&Counted>, now: u64) {
        let increase = match earlier {
            Some(earlier) => counted.totals.since(&earlier.totals),
            None => counted.totals.clone(),
        };
        for (category, outcome, count) in increase.iter() {
            let series = [
                counted.route.clone(),
                counted.outbound.clone(),
                category.word().to_owned(),
                outcome.word().to_owned(),
            ];
            self.hours.add(now, Series(series), count);
        }
    }
}

fn totals(counters: &PerWorker<OutboundCounters>) -> ItemTotals {
    ItemTotals::read(counters.iter().map(|worker| &worker.items))
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What is in `file`. A file that cannot be used is no reason not to start.
fn read(file: &Path, now: u64) -> Option<Hours> {
    let text = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        read => read,
    };
    let hours = text
        .map_err(|error| error.to_string())
        .and_then(|text| Hours::from_json(&text, now));
    hours
        .inspect_err(|error| {
            warn!(file = %file.display(), %error, "state_file cannot be read; counting begins anew");
        })
        .ok()
}

/// Replaces `file` as a whole, or leaves it as it is.
fn replace(file: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    let mut written = File::create(new)?;
    written.write_all(text)?;
    written.sync_all()?;
    fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::Config;

    fn table(outbound: &str, previous: Option<&RoutingTable>) -> Arc<RoutingTable> {
        table_with(true, outbound, previous)
    }

    fn table_with(
        item_metrics: bool,
        outbound: &str,
        previous: Option<&RoutingTable>,
    ) -> Arc<RoutingTable> {
        let text = format!(
            "item_metrics: {item_metrics}\nkeys:\n- {{name: shop, inbound: http://aaaa@m/1, outbound: [{{name: eu, dsn: 'http://{outbound}'}}]}}\n"
        );
        let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
        Arc::new(RoutingTable::new(&config, 2, previous).unwrap())
    }

    #[test]
    fn counts_survive_in_the_file_and_a_broken_file_is_replaced() {
        let folder =
            std::env::temp_dir().join(format!("sentry-mirror-hours-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("state.json");
        fs::write(&file, "{").unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_796_000_400);
        let table = table("bbbb@127.0.0.1:9/2", None);
        let keeper = HourKeeper::new(Some(file.clone()), now);
        keeper.finish(&table, now);
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(
            text,
            "{\"version\":1,\"complete_since\":1796000400,\"series\":[],\"hours\":[]}"
        );
        let known = text.replace(
            "\"series\":[],\"hours\":[]",
            "\"series\":[[\"shop\",\"eu\",\"error\",\"lost\"]],\"hours\":[{\"start\":1796000400,\"counts\":[[0,7]]}]",
        );
        fs::write(&file, &known).unwrap();
        let keeper = HourKeeper::new(Some(file.clone()), now + Duration::from_secs(9000));
        keeper.finish(&table, now + Duration::from_secs(9000));
        assert_eq!(fs::read_to_string(&file).unwrap(), known);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        // A folder that is gone is no reason to stop.
        fs::remove_dir_all(&folder).unwrap();
        keeper.finish(&table, now + Duration::from_secs(9000));
        assert_eq!(keeper.to_json(), known.into_bytes());
    }

    #[test]
    fn counts_are_complete_only_since_items_are_counted_again() {
        let dsn = "bbbb@127.0.0.1:9/2";
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let keeper = HourKeeper::new(None, at(100));
        let complete_since = |table: &RoutingTable, now| {
            keeper.sample(table, at(now));
            let page: serde_json::Value = serde_json::from_slice(&keeper.to_json()).unwrap();
            page["complete_since"].as_u64().unwrap()
        };
        let on = table(dsn, None);
        assert_eq!(complete_since(&on, 105), 100);
        let off = table_with(false, dsn, Some(&on));
        assert_eq!(complete_since(&off, 110), 110);
        assert_eq!(complete_since(&off, 115), 115);
        let on = table(dsn, Some(&off));
        assert_eq!(complete_since(&on, 120), 120, "off until now");
        assert_eq!(complete_since(&on, 125), 120);
        // Off and on again between two samples.
        let on = table(dsn, Some(&table_with(false, dsn, Some(&on))));
        assert_eq!(complete_since(&on, 130), 130);
        assert_eq!(complete_since(&table(dsn, Some(&on)), 135), 130);
    }
}
