use super::*;

#[test]
fn a_worker_is_ahead_by_more_than_an_eighth_and_four() {
    let workers = AcceptBalance::for_workers(2);
    let ahead = |a: usize, b: usize| {
        workers[0].publish(a);
        workers[1].publish(b);
        (workers[0].is_ahead(), workers[1].is_ahead())
    };
    assert_eq!(ahead(0, 0), (false, false));
    assert_eq!(ahead(4, 0), (false, false));
    assert_eq!(ahead(5, 0), (true, false));
    assert_eq!(ahead(32, 40), (false, false));
    assert_eq!(ahead(32, 41), (false, true));
    assert_eq!(ahead(900, 800), (false, false));
    assert_eq!(ahead(905, 800), (true, false));
    assert!(!AcceptBalance::for_workers(1)[0].is_ahead());
}

#[test]
fn counts_of_workers_do_not_share_cache_lines() {
    let workers = AcceptBalance::for_workers(2);
    let address = |index: usize| std::ptr::from_ref(&workers[0].counts[index]).addr();
    assert_eq!(address(0) % 128, 0);
    assert!(address(1) - address(0) >= 128);
}

const WORKERS: usize = 64;

/// Decides from the connections of all workers whether one of them waits.
type Rule = fn(&[usize; WORKERS], usize) -> bool;

fn ahead_of_the_mean(counts: &[usize; WORKERS], worker: usize) -> bool {
    let all: usize = counts.iter().sum();
    is_ahead(counts[worker], all - counts[worker], WORKERS - 1)
}

fn ahead_of_the_least(counts: &[usize; WORKERS], worker: usize) -> bool {
    is_ahead(counts[worker], *counts.iter().min().unwrap(), 1)
}

/// What a simulation found.
#[derive(Debug)]
struct Findings {
    /// How many of a thousand accepts a wait came after.
    waits: usize,
    /// The mean time until a worker accepts again, over all accepts, in microseconds.
    wait_us: usize,
    /// The most connections that any worker ever had above the mean.
    lead: usize,
}

/// Workers that accept from one socket.
struct Simulation {
    rule: Rule,
    state: u64,
    counts: [usize; WORKERS],
    /// The worker of each open connection.
    open: Vec<usize>,
    /// How many checks each worker still makes before it accepts.
    checks: [usize; WORKERS],
    accepts: usize,
    waits: usize,
    steps_waited: usize,
    lead: usize,
}

impl Simulation {
    fn random(&mut self, below: usize) -> usize {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % below as u64).unwrap()
    }

    fn is_ahead(&self, worker: usize) -> bool {
        (self.rule)(&self.counts, worker)
    }

    fn accept(&mut self, is_accepting: impl Fn(&Simulation, usize) -> bool) {
        let candidates: Vec<_> = (0..WORKERS)
            .filter(|worker| self.checks[*worker] == 0 && is_accepting(self, *worker))
            .collect();
        // Otherwise the connection stays in the queue of the socket, and is forgotten here.
        if candidates.is_empty() {
            return;
        }
        let worker = candidates[self.random(candidates.len())];
        self.counts[worker] += 1;
        self.open.push(worker);
        self.accepts += 1;
        if self.is_ahead(worker) {
            self.waits += 1;
            self.checks[worker] = CHECKS_MAX;
        }
    }

    /// Runs for 500 steps of [`CHECK_INTERVAL`]. In each, `arrivals` connections go to random workers that
    /// do not wait, and as many random open ones end once `mean` are open per worker. In `busy` of ten steps, the
    /// first ten workers accept nothing.
    fn run(rule: Rule, mean: usize, arrivals: usize, busy: usize) -> Findings {
        let mut simulation = Simulation {
            rule,
            state: 1,
            counts: [0; WORKERS],
            open: Vec::new(),
            checks: [0; WORKERS],
            accepts: 0,
            waits: 0,
            steps_waited: 0,
            lead: 0,
        };
        for step in 0..500 {
            let is_busy = step % 10 < busy;
            for _ in 0..arrivals {
                simulation.accept(|_, worker| !is_busy || worker >= 10);
                if simulation.open.len() > mean * WORKERS {
                    let ended = simulation.random(simulation.open.len());
                    let worker = simulation.open.swap_remove(ended);
                    simulation.counts[worker] -= 1;
                }
            }
            for worker in 0..WORKERS {
                if simulation.checks[worker] > 0 {
                    simulation.steps_waited += 1;
                    simulation.checks[worker] -= 1;
                    if !simulation.is_ahead(worker) {
                        simulation.checks[worker] = 0;
                    }
                }
            }
            let most = simulation.counts.iter().max().copied().unwrap();
            let current = simulation.open.len() / WORKERS;
            simulation.lead = simulation.lead.max(most - current);
        }
        Findings {
            waits: simulation.waits * 1000 / simulation.accepts,
            wait_us: simulation.steps_waited * 1000 / simulation.accepts,
            lead: simulation.lead,
        }
    }
}

#[test]
fn of_many_workers_few_wait_and_none_gets_far_ahead() {
    // The mean of open connections, arrivals per millisecond; the most waits in a thousand accepts, and the most
    // connections ahead.
    for (mean, arrivals, waits, lead) in [
        (2, 2, 60, 7),
        (8, 8, 130, 7),
        (16, 16, 110, 8),
        (64, 32, 60, 14),
        (128, 64, 30, 22),
        (512, 256, 5, 70),
    ] {
        for busy in [0, 3] {
            let found = Simulation::run(ahead_of_the_mean, mean, arrivals, busy);
            let case = format!("{mean} open, {arrivals} arrivals, busy {busy}: {found:?}");
            assert!(found.waits <= waits, "{case}");
            assert!(found.wait_us < 700, "{case}");
            assert!(found.lead <= lead, "{case}");
        }
    }
}

#[test]
fn against_the_least_of_many_workers_an_average_one_would_wait() {
    for (mean, arrivals) in [(8, 8), (64, 32)] {
        let found = Simulation::run(ahead_of_the_least, mean, arrivals, 0);
        let better = Simulation::run(ahead_of_the_mean, mean, arrivals, 0);
        assert!(found.waits > 4 * better.waits, "{found:?} {better:?}");
    }
}

#[test]
fn there_is_room_elsewhere_if_another_worker_is_below_the_limit() {
    let workers = AcceptBalance::for_workers(3);
    for (worker, open) in workers.iter().zip([10, 9, 10]) {
        worker.publish(open);
    }
    assert!(workers[0].has_room_elsewhere(10));
    // Its own room is not elsewhere.
    assert!(!workers[1].has_room_elsewhere(10));
    assert!(!workers[0].has_room_elsewhere(9));
    assert!(!AcceptBalance::for_workers(1)[0].has_room_elsewhere(10));
}
