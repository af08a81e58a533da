//! What is measured: the cases, each with its requests, its outbounds and its clients.

use crate::wire::{Coding, Content, Key, Kind};

/// A case.
#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    pub outbounds: usize,
    pub kinds: Vec<Kind>,
    /// How many clients send at a time.
    pub lanes: usize,
    /// How many of a hundred clients take a new connection for each request.
    pub fresh: usize,
    pub is_tls: bool,
    /// The number of further idle connections, each open after one request.
    pub idle: usize,
    /// The fault of the last outbound.
    pub trouble: Option<Trouble>,
    pub workers: usize,
    /// Whether the floor makes sense here.
    pub has_floor: bool,
}

/// A fault of an outbound.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Its address refuses connections.
    Refuses,
    /// It accepts connections and never answers.
    Silent,
}

const KB: usize = 1000;

/// How many clients send at a time, unless a case says otherwise.
const LANES: usize = 32;

impl Case {
    pub fn new(name: &'static str, outbounds: usize, kind: Kind) -> Case {
        Case {
            name,
            outbounds,
            kinds: vec![kind],
            lanes: LANES,
            fresh: 0,
            is_tls: false,
            idle: 0,
            trouble: None,
            workers: 1,
            has_floor: true,
        }
    }

    /// How many outbounds get everything.
    pub fn sound_outbounds(&self) -> usize {
        self.outbounds - usize::from(self.trouble.is_some())
    }

    pub fn is_gzip(&self) -> bool {
        self.kinds.iter().all(|kind| kind.coding == Coding::Gzip)
    }
}

/// The cases with one of these names, or with a part of one in theirs; all without any.
pub fn named(parts: &[String]) -> Vec<Case> {
    let mut cases = all();
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    let is_meant =
        |name: &str, part: &str| name == part || (name.contains(part) && !names.contains(&part));
    cases.retain(|case| parts.is_empty() || parts.iter().any(|part| is_meant(case.name, part)));
    cases
}

/// All cases.
fn all() -> Vec<Case> {
    let small = text(KB);
    let two = Case::new("1 KB x 2", 2, small);
    vec![
        Case::new("1 KB x 1", 1, small),
        two.clone(),
        Case::new("1 KB x 8", 8, small),
        Case::new("8 KB gzip x 2", 2, gzip(8 * KB)),
        Case::new("40 KB gzip x 2", 2, gzip(40 * KB)),
        Case::new("300 KB binary x 2", 2, binary(300 * KB)),
        Case::new("4 KB chunked x 2", 2, chunked(4 * KB)),
        Case {
            is_tls: true,
            ..Case::new("TLS 1 KB x 2", 2, small)
        },
        tls(Case::new("TLS 2 KB x 2", 2, text(2 * KB))),
        tls(Case::new("TLS 8 KB gzip x 2", 2, gzip(8 * KB))),
        tls(Case::new("TLS 200 KB x 2", 2, binary(200 * KB))),
        Case {
            name: "1 KB x 2, 10,000 idle",
            idle: 10_000.min(idle_max()),
            ..two.clone()
        },
        Case {
            name: "1 KB x 2, one refuses",
            trouble: Some(Trouble::Refuses),
            has_floor: false,
            ..two.clone()
        },
        Case {
            name: "1 KB x 2, one is silent",
            trouble: Some(Trouble::Silent),
            has_floor: false,
            ..two.clone()
        },
        Case {
            name: "mixed x 2",
            kinds: mix(),
            fresh: 30,
            has_floor: false,
            ..two.clone()
        },
        Case {
            name: "1 KB x 2, a connection per request",
            fresh: 100,
            ..two.clone()
        },
        Case {
            name: "1 KB x 2, 64 clients",
            lanes: 64,
            has_floor: false,
            ..two.clone()
        },
        Case {
            name: "1 KB x 2, 64 clients, 2 workers",
            lanes: 64,
            workers: 2,
            has_floor: false,
            ..two
        },
    ]
}

/// The number of idle connections: the mirror accepts at most half of its descriptors.
fn idle_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    limit.map_or(usize::MAX, |limit| (limit / 2).saturating_sub(LANES * 4))
}

fn tls(case: Case) -> Case {
    Case {
        is_tls: true,
        has_floor: false,
        ..case
    }
}

pub fn text(bytes: usize) -> Kind {
    Kind {
        share: 100,
        bytes,
        coding: Coding::Identity,
        key: Key::Field,
        content: Content::Text,
    }
}

pub fn gzip(bytes: usize) -> Kind {
    Kind {
        coding: Coding::Gzip,
        ..text(bytes)
    }
}

fn binary(bytes: usize) -> Kind {
    Kind {
        content: Content::Binary,
        ..text(bytes)
    }
}

fn chunked(bytes: usize) -> Kind {
    Kind {
        coding: Coding::Chunked,
        key: Key::Query,
        ..text(bytes)
    }
}

fn with_dsn(bytes: usize) -> Kind {
    Kind {
        content: Content::TextWithDsn,
        ..text(bytes)
    }
}

/// The traffic of a mirror for many SDKs.
fn mix() -> Vec<Kind> {
    let minidump = Kind {
        content: Content::Minidump,
        ..text(1000 * KB)
    };
    let of = |share: usize, kind: Kind| Kind { share, ..kind };
    vec![
        // Errors and spans of Node and browsers.
        of(9, chunked(KB)),
        of(9, chunked(4 * KB)),
        of(9, text(KB)),
        of(8, text(5 * KB)),
        // Errors and transactions of Python, Java and PHP.
        of(13, gzip(3 * KB)),
        of(12, gzip(9 * KB)),
        // Sessions.
        of(5, text(400)),
        of(5, gzip(500)),
        // Logs and metrics.
        of(5, gzip(2 * KB)),
        of(5, text(2 * KB)),
        // Events of Go and Ruby.
        of(8, with_dsn(3 * KB)),
        // Check-ins, feedback, client reports.
        of(5, text(400)),
        // Transactions of real pages.
        of(2, text(120 * KB)),
        of(2, gzip(120 * KB)),
        // Replays.
        of(2, binary(200 * KB)),
        // Attachments, minidumps and profiles.
        of(1, minidump),
    ]
}
