//! A slot: one contender in one far-away case, from its start to its end.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use super::cases::{Course, Distance, FarCase};
use super::engine::Engine;
use super::history::{Request, Summary, WINDOW, latencies, windows};
use super::line::{FAR, Line};
use super::namespace;
use super::sinks::Sinks;
use crate::contender::{Contender, Running, Setup};
use crate::kernel::{CpuTimes, memory};
use crate::ledger::{Ledger, Verdict};
use crate::stats::Latency;
use crate::tls::Tls;
use crate::wire::{Target, Template};

/// The load before a rest.
const BEFORE_REST: Duration = Duration::from_secs(1);

/// What is not warm yet, for connections opened, where nothing precedes the measured load.
const WARMING: Duration = Duration::from_secs(2);

/// How long answers and deliveries may take after the end of the load.
const SETTLING: Duration = Duration::from_secs(8);

/// What all slots share.
pub struct Bench<'b> {
    pub contender_cores: &'b [usize],
    pub own_cores: &'b [usize],
    pub folder: &'b Path,
    pub tls: &'b Tls,
    /// The load before a steady one is measured, and the measured one.
    pub warm_up: Duration,
    pub time: Duration,
    /// Whether every body is compared.
    pub is_thorough: bool,
}

/// The result of a slot.
pub struct Sample {
    /// Microseconds of CPU time per request.
    pub cpu: f64,
    pub summary: Summary,
    pub verdict: Verdict,
    pub opened: usize,
    /// Connections opened per 1,000 requests, once it is warm.
    pub opened_per_1000: f64,
    pub in_flight: f64,
    /// Memory that each request in flight has added, in bytes.
    pub bytes_in_flight: f64,
    pub steps: Vec<Step>,
    /// What else the figures depend on.
    pub remark: Option<String>,
}

/// The state at the end of a window.
#[derive(Clone)]
pub struct Step {
    pub requests: usize,
    pub refused: usize,
    pub in_flight: usize,
    /// Requests that have not arrived at an average sink, without the refused ones.
    pub before_sinks: usize,
    pub opened: usize,
    pub open: usize,
    pub cpu: CpuTimes,
    pub rss_kib: u64,
    /// Of the requests that were due in this window.
    pub latency: Option<Latency>,
}

impl Bench<'_> {
    pub fn run(&self, case: &FarCase, contender: &Contender) -> Result<Sample, String> {
        let outbounds = case.near.outbounds;
        let server = case.near.is_tls.then(|| self.tls.server.clone());
        let (line, sinks) = match case.distance {
            Distance::Delay(delay) => {
                let sinks = Sinks::listen(outbounds, Ipv4Addr::LOCALHOST, server, delay)?;
                (None, sinks)
            }
            Distance::Line { one_way, loss } => {
                let line = Line::lay(one_way, loss)?;
                let sinks =
                    line.at_the_far_end(|| Sinks::listen(outbounds, FAR, server, Duration::ZERO))?;
                if let Some(ports) = case.ports {
                    namespace::limit_ports(ports)?;
                }
                (Some(line), sinks)
            }
        };
        let addresses = sinks.addresses()?;
        let target = |index: usize| Target::new(index, addresses[index], case.near.is_tls);
        let targets: Vec<Target> = (0..outbounds).map(target).collect();
        let setup = Setup {
            case: &case.near,
            targets: &targets,
            sinks: &addresses,
            folder: self.folder,
            ca_file: &self.tls.ca_file,
        };
        let running = contender.start(&setup, self.contender_cores, self.own_cores)?;

        let template = Template::new(0, &case.near.kinds[0]);
        let templates = std::slice::from_ref(&template);
        let ledgers = targets.into_iter().map(|target| {
            let mut ledger = Ledger::new(target, contender.ability(), templates);
            ledger.is_thorough = self.is_thorough;
            ledger
        });
        let ledgers = ledgers.collect();
        let mut engine = Engine::new(sinks, line, running.address, template)?;
        engine.sinks.ledgers = ledgers;
        let sample = self.measure(case, &mut engine, &running)?;
        // While the line is still there.
        running.stop()?;
        Ok(sample)
    }

    fn measure(
        &self,
        case: &FarCase,
        engine: &mut Engine,
        running: &Running,
    ) -> Result<Sample, String> {
        let process = running.process();
        let rss_before = memory(process, "VmRSS");
        match case.course {
            Course::Start => engine.begin(case.load),
            Course::Steady => {
                engine.begin(case.load);
                engine.run(self.warm_up)?;
            }
            Course::Rest(rest) => {
                engine.begin(case.load);
                engine.run(BEFORE_REST)?;
                engine.pause();
                engine.run(rest)?;
                engine.begin(case.load);
            }
        }
        let (begin, first) = (engine.now(), engine.requests.len());
        let mut steps = vec![Step::of(engine, process)];
        while engine.now() < begin + self.time.as_nanos() as u64 {
            let end = begin + steps.len() as u64 * WINDOW.as_nanos() as u64;
            engine.run(Duration::from_nanos(end.saturating_sub(engine.now())))?;
            steps.push(Step::of(engine, process));
        }
        engine.pause();
        let last = engine.requests.len();
        engine.settle(SETTLING)?;

        let mut verdict = Verdict::default();
        for ledger in &engine.sinks.ledgers {
            verdict.add(ledger.verdict(engine.requests.len()));
        }
        let requests = &engine.requests[first..last];
        for (step, window) in steps[1..].iter_mut().zip(windows(requests, begin)) {
            step.latency = Some(Latency::of(latencies(window)));
        }
        let summary = Summary::of(requests, begin, case.distance.round_trip());
        let mut sample = Sample::of(case, summary, verdict, steps, rss_before);
        sample.remark = engine.sinks.complaint.take();
        Ok(sample)
    }
}

impl Sample {
    fn of(
        case: &FarCase,
        summary: Summary,
        verdict: Verdict,
        steps: Vec<Step>,
        rss_before: u64,
    ) -> Sample {
        let (first, last) = (&steps[0], &steps[steps.len() - 1]);
        let used = last.cpu.total_since(&first.cpu);
        let warming = match case.course {
            Course::Steady => 0,
            Course::Start | Course::Rest(_) => (WARMING.as_millis() / WINDOW.as_millis()) as usize,
        };
        let warm = &steps[warming.min(steps.len() / 2)];
        let opened = last.opened - warm.opened;
        let warm_requests = (last.requests - warm.requests).max(1);
        // The mean number at a time is the time of all together per time (Little's law).
        let time = WINDOW.as_secs_f64() * (steps.len() - 1).max(1) as f64;
        let in_flight = summary.waited_s / time;
        let peak = steps.iter().map(|step| step.rss_kib).max().unwrap_or(0);
        Sample {
            cpu: used.as_secs_f64() * 1e6 / summary.requests.max(1) as f64,
            opened: last.opened - first.opened,
            opened_per_1000: opened as f64 * 1000.0 / warm_requests as f64,
            in_flight,
            bytes_in_flight: peak.saturating_sub(rss_before) as f64 * 1024.0 / in_flight.max(1.0),
            summary,
            verdict,
            steps,
            remark: None,
        }
    }

    /// Whether what arrived was right; requests may be lost.
    pub fn is_right(&self) -> bool {
        self.verdict.wrong == 0
    }

    /// What is wrong with a sample in which nothing may be lost.
    pub fn fault(&self, round_trip: Duration) -> Option<String> {
        let Summary {
            lost, shortest_us, ..
        } = self.summary;
        let Verdict {
            twice,
            wrong,
            complaint,
            ..
        } = &self.verdict;
        if lost + twice + wrong > 0 {
            let complaint = complaint.as_deref().unwrap_or("");
            return Some(format!(
                "{lost} lost, {twice} twice, {wrong} wrong: {complaint}"
            ));
        }
        (shortest_us < round_trip.as_secs_f64() * 1e6)
            .then(|| format!("an answer came after {shortest_us:.0} µs, earlier than it can"))
    }
}

impl Step {
    fn of(engine: &Engine, process: u32) -> Step {
        let requests: &[Request] = &engine.requests;
        let arrived = engine.sinks.arrived() / engine.sinks.ledgers.len();
        Step {
            requests: requests.len(),
            refused: engine.refused,
            in_flight: engine.in_flight(),
            before_sinks: requests.len().saturating_sub(arrived + engine.refused),
            opened: engine.sinks.accepted,
            open: engine.sinks.open(),
            cpu: CpuTimes::of(process),
            rss_kib: memory(process, "VmRSS"),
            latency: None,
        }
    }
}
