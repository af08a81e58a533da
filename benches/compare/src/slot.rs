//! A slot: one contender in one case, from its start to its end.
//!
//! The contender is started anew, so that no slot inherits anything from another. It is warmed up, loaded to
//! its limit, then loaded at the same rate as all contenders of the case, and stopped. At the end every sink
//! is checked for its requests.

use std::path::PathBuf;
use std::time::Duration;

use crate::cases::{Case, Trouble};
use crate::contender::{Contender, Running, Setup};
use crate::engine::{Engine, Pace, Stretch, said};
use crate::kernel::{CpuTimes, SyscallCount, memory};
use crate::lane::Lane;
use crate::ledger::{Ledger, Verdict};
use crate::stats::Latency;
use crate::tls::Tls;
use crate::wire::{Target, Template};

/// How long a contender is loaded before anything is measured.
const WARM_UP: Duration = Duration::from_millis(400);

/// How long system calls are counted.
const SYSCALL_TIME: Duration = Duration::from_millis(300);

/// How long deliveries in the background may take.
const SETTLING: Duration = Duration::from_secs(5);

/// The settings that all slots share.
pub struct Bench {
    /// The cores of the contender in cases with one worker, and with two.
    pub contender_cores: Vec<usize>,
    pub all_cores: Vec<usize>,
    pub own_cores: Vec<usize>,
    pub folder: PathBuf,
    pub tls: Tls,
    pub time: Duration,
}

/// The task of a slot.
#[derive(Clone, Copy, Default)]
pub struct Plan {
    /// The rate of the open-loop load, if there is one.
    pub rate: Option<f64>,
    pub counts_syscalls: bool,
    /// Every body is compared, and load is light.
    pub is_check: bool,
}

/// The result of a slot.
pub struct Sample {
    /// Requests a second, as fast as they are answered.
    pub throughput: f64,
    /// Microseconds of CPU time per request.
    pub cpu: f64,
    /// The share of its cores that the contender used. Far below 1, the bottleneck was elsewhere.
    pub busy: f64,
    pub latency: Option<Latency>,
    /// Microseconds of CPU time per request, at the rate of the open load.
    pub open_cpu: Option<f64>,
    pub peak_rss_kib: u64,
    /// Memory that each idle connection has added, in bytes.
    pub idle_bytes: Option<f64>,
    pub upstream_connections: usize,
    pub syscalls: Option<f64>,
    /// The load of the busiest worker, relative to the average.
    pub imbalance: f64,
    pub requests: usize,
    pub verdict: Verdict,
}

impl Bench {
    pub fn run(&self, case: &Case, contender: &Contender, plan: Plan) -> Result<Sample, String> {
        let case = &contender.own(case);
        let tls = case.is_tls.then(|| self.tls.server.clone());
        let mut engine = Engine::new(case.outbounds, tls)?;
        let sinks = (0..case.outbounds).map(|index| engine.address(index));
        let sinks = sinks.collect::<Result<Vec<_>, _>>()?;
        let target = |index: usize| Target::new(index, sinks[index], case.is_tls);
        let targets: Vec<Target> = (0..case.outbounds).map(target).collect();
        let kinds = case.kinds.iter().enumerate();
        let templates: Vec<Template> = kinds
            .map(|(index, kind)| Template::new(index, kind))
            .collect();
        let setup = Setup {
            case,
            targets: &targets,
            sinks: &sinks,
            folder: &self.folder,
            ca_file: &self.tls.ca_file,
        };
        let cores = if case.workers > 1 {
            &self.all_cores
        } else {
            &self.contender_cores
        };
        let running = contender.start(&setup, cores, &self.own_cores)?;

        for target in targets {
            let mut ledger = Ledger::new(target, contender.ability(), &templates);
            ledger.is_thorough = plan.is_check;
            engine.ledgers.push(ledger);
        }
        match case.trouble {
            Some(Trouble::Refuses) => engine.refuse(case.outbounds - 1),
            Some(Trouble::Silent) => engine.fall_silent(case.outbounds - 1)?,
            None => {}
        }
        let order = order(case);
        let sample = if plan.is_check {
            self.check(case, engine, &running, templates, order)?
        } else {
            self.measure(case, engine, &running, templates, order, plan)?
        };
        running.stop()?;
        Ok(sample)
    }

    /// A few requests of each kind, one after the other.
    fn check(
        &self,
        case: &Case,
        mut engine: Engine,
        running: &Running,
        templates: Vec<Template>,
        order: Vec<usize>,
    ) -> Result<Sample, String> {
        engine.load(
            running.address,
            templates,
            order,
            vec![Lane::new(false), Lane::new(true)],
        );
        let stretch = engine.run(Pace::Open(1000.0), Duration::from_millis(100))?;
        engine.settle(case.sound_outbounds(), SETTLING)?;
        Ok(Sample {
            throughput: 0.0,
            cpu: 0.0,
            busy: 0.0,
            latency: None,
            open_cpu: None,
            peak_rss_kib: memory(running.process(), "VmHWM"),
            idle_bytes: None,
            upstream_connections: engine.accepted.iter().sum(),
            syscalls: None,
            imbalance: 1.0,
            requests: stretch.answered,
            verdict: engine.verdict(case.sound_outbounds()),
        })
    }

    fn measure(
        &self,
        case: &Case,
        mut engine: Engine,
        running: &Running,
        templates: Vec<Template>,
        order: Vec<usize>,
        plan: Plan,
    ) -> Result<Sample, String> {
        let process = running.process();
        let before_idle = memory(process, "VmRSS");
        engine.load(running.address, templates, order, Vec::new());
        let mut parked = Vec::new();
        while parked.len() < case.idle {
            // A few at a time; a burst of all of them would measure something else.
            engine.set_lanes(lanes(case.lanes.min(case.idle - parked.len()), 0));
            engine.once()?;
            parked.extend(engine.park()?);
        }
        let idle_kib = memory(process, "VmRSS").saturating_sub(before_idle);
        engine.set_lanes(lanes(case.lanes, case.fresh));

        engine.run(Pace::Full, WARM_UP)?;
        let before = CpuTimes::of(process);
        let mut after = CpuTimes::default();
        let full = engine.run_observed(Pace::Full, self.time, || after = CpuTimes::of(process))?;
        let mut sample = Sample::of(&full, &before, &after, case);
        sample.idle_bytes = (case.idle > 0).then(|| idle_kib as f64 * 1024.0 / parked.len() as f64);

        if plan.counts_syscalls {
            sample.syscalls = count_syscalls(&mut engine, process)?;
        }
        if let Some(rate) = plan.rate {
            let before = CpuTimes::of(process);
            let open = engine.run(Pace::Open(rate), self.time)?;
            let used = CpuTimes::of(process).total_since(&before);
            sample.open_cpu = Some(per_request(used, open.answered));
            sample.latency = Some(Latency::of(open.latencies));
        }
        engine.settle(case.sound_outbounds(), SETTLING)?;
        sample.peak_rss_kib = memory(process, "VmHWM");
        sample.upstream_connections = engine.accepted.iter().sum();
        sample.verdict = engine.verdict(case.sound_outbounds());
        sample.requests = engine.sent();
        Ok(sample)
    }
}

impl Sample {
    fn of(full: &Stretch, before: &CpuTimes, after: &CpuTimes, case: &Case) -> Sample {
        let used = after.total_since(before);
        let seconds = full.elapsed.as_secs_f64();
        Sample {
            throughput: full.answered_in_time as f64 / seconds,
            cpu: per_request(used, full.answered_in_time),
            busy: used.as_secs_f64() / seconds / case.workers as f64,
            latency: None,
            open_cpu: None,
            peak_rss_kib: 0,
            idle_bytes: None,
            upstream_connections: 0,
            syscalls: None,
            imbalance: after.imbalance_since(before, case.workers),
            requests: 0,
            verdict: Verdict::default(),
        }
    }
}

fn per_request(used: Duration, requests: usize) -> f64 {
    used.as_secs_f64() * 1e6 / requests.max(1) as f64
}

fn count_syscalls(engine: &mut Engine, process: u32) -> Result<Option<f64>, String> {
    let Some(count) = SyscallCount::start(process) else {
        return Ok(None);
    };
    // perf attaches while nothing happens.
    std::thread::sleep(Duration::from_millis(300));
    let stretch = engine.run(Pace::Full, SYSCALL_TIME)?;
    let count = count.stop();
    Ok(count.map(|count| count as f64 / stretch.answered.max(1) as f64))
}

fn lanes(count: usize, fresh: usize) -> Vec<Lane> {
    // Spread, so that any stretch of lanes has about its share.
    let is_fresh = |lane: usize| (lane * 37) % 100 < fresh;
    (0..count).map(|lane| Lane::new(is_fresh(lane))).collect()
}

/// The order of kinds: a hundred requests, mixed by the shares of the kinds.
fn order(case: &Case) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::new();
    for (index, kind) in case.kinds.iter().enumerate() {
        order.extend(std::iter::repeat_n(index, kind.share));
    }
    (0..order.len())
        .map(|place| order[place * 37 % order.len()])
        .collect()
}

/// A folder for the files of this run, emptied.
pub fn folder() -> Result<PathBuf, String> {
    let folder = std::env::temp_dir().join(format!("compare-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(said("a folder for files"))?;
    Ok(folder)
}
